"""Small files in GLUE's official layout, written by hand: two rows of each label, with what such files really hold."""

from pathlib import Path

REAL = Path(__file__).resolve().parents[4] / "shared" / "data" / "glue"
"""Where the real files lie beside the repository; tests that read them skip where they are absent."""

_STSB_FRONT = "g\tf\t2012\t1\tnone\tnone"
_STSB = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2"
_QQP = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate"
_MNLI = (
    "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\t"
    "sentence1_parse\tsentence2_parse\tsentence1\tsentence2"
)
_MNLI_DEV = [
    f"{_MNLI}\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5\tgold_label",
    '0\t9\t9e\ttravel\t( a )\t( b )\t(R a)\t(R b)\tHe said "no\tHe spoke\t'
    + "entailment\tneutral\tneutral\tneutral\tneutral\tneutral",
    "1\t8\t8c\ttravel\t( a )\t( b )\t(R a)\t(R b)\tRain\tSun\t" + "\t".join(["contradiction"] * 6),
    "2\t7\t7e\ttravel\t( a )\t( b )\t(R a)\t(R b)\tIt rains\tRain\t" + "\t".join(["entailment"] * 6),
]
_MNLI_TEST = [_MNLI, "0\t1\t1\tfiction\t( a )\t( b )\t(R a)\t(R b)\tOne\tTwo"]

_MRPC = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"

FILES = {
    "CoLA": {
        "train.tsv": ["gj04\t1\t\tOne more and I'm \"giving up.", "gj04\t0\t*\tWhom saw you did ?", "gj04\t1\t\tOK."],
        "dev.tsv": ["gj04\t1\t\tThe sailors rode.", "gj04\t0\t*\tThe rode sailors."],
        "test.tsv": ["index\tsentence", "0\tBill whistled."],
    },
    "SST-2": {
        "train.tsv": ["sentence\tlabel", "contains no wit \t0", 'a " charming " journey \t1'],
        "dev.tsv": ["sentence\tlabel", "it 's fine . \t1", "bleak \t0"],
        "test.tsv": ["index\tsentence", "0\tuneasy"],
    },
    "MRPC": {
        "train.tsv": [_MRPC, '1\t7\t8\tHe said " yes .\tYes , he said .', "0\t9\t10\tA\tB"],
        "dev.tsv": ["\ufeff" + _MRPC, "1\t1\t2\tAB\tBA", "0\t3\t4\tC\tD"],
        "test.tsv": ["index\t#1 ID\t#2 ID\t#1 String\t#2 String", "0\t5\t6\tE\tF"],
    },
    "STS-B": {
        "train.tsv": [f"{_STSB}\tscore", f"0\t{_STSB_FRONT}\tA plane.\tA flute.\t0.250", f"1\t{_STSB_FRONT}\tA\tA\t5.000"],
        "dev.tsv": [f"{_STSB}\tscore", "0\tg\tf\t2012\t1\tnone\tnone\tA man.\tA hat.\t3.800"],
        "test.tsv": [_STSB, "0\tg\tf\t2012\t1\tnone\tnone\tA girl.\tA boy."],
    },
    "RTE": {
        "train.tsv": ["index\tsentence1\tsentence2\tlabel", "0\tP\tH\tnot_entailment", "1\tP\tH\tentailment"],
        "dev.tsv": ["index\tsentence1\tsentence2\tlabel", "0\tIt rains.\tIt is wet.\tentailment"],
        "test.tsv": ["index\tsentence1\tsentence2", "0\tP\tH"],
    },
    "WNLI": {
        "train.tsv": ["index\tsentence1\tsentence2\tlabel", "0\tA pin.\tThe pin.\t1", "1\tP\tH\t0"],
        "dev.tsv": ["index\tsentence1\tsentence2\tlabel", "0\tP\tH\t0"],
        "test.tsv": ["index\tsentence1\tsentence2", "0\tP\tH"],
    },
    "QNLI": {
        "train.tsv": ["index\tquestion\tsentence\tlabel", "0\tWhen?\tIn 1066.\tentailment", '1\tWho?\t"It".\tnot_entailment'],
        "dev.tsv": ["index\tquestion\tsentence\tlabel", "0\tWhere?\tIn Rome.\tentailment"],
        "test.tsv": ["index\tquestion\tsentence", "0\tWhy?\tSo."],
    },
    "QQP": {
        "train.tsv": [_QQP, "133273\t213221\t213222\tHow is \"life?\tHow is it?\t0", "402555\t536040\t536041\tWhat?\tWhich?\t1"],
        "dev.tsv": [_QQP, "201359\t303345\t303346\tWhy are they?\tWhy?\t0"],
        "test.tsv": ["id\tquestion1\tquestion2", "0\tWould?\tCould?"],
    },
    "MNLI": {
        "train.tsv": [
            f"{_MNLI}\tlabel1\tgold_label",
            "0\t3\t3n\tgovernment\t( a )\t( b )\t(R a)\t(R b)\tCream skimming.\tProduct.\tneutral\tneutral",
            "1\t4\t4e\tgovernment\t( a )\t( b )\t(R a)\t(R b)\tYou know.\tKnow.\tentailment\tentailment",
            "2\t5\t5c\tgovernment\t( a )\t( b )\t(R a)\t(R b)\tYes.\tNo.\tcontradiction\tcontradiction",
        ],
        "dev_matched.tsv": _MNLI_DEV,
        "dev_mismatched.tsv": _MNLI_DEV[:2],
        "test_matched.tsv": _MNLI_TEST,
        "test_mismatched.tsv": _MNLI_TEST,
    },
}  # fmt: skip

_AX_FULL = "Lexical Semantics\tPredicate-Argument Structure\tLogic\tKnowledge\tDomain\tPremise\tHypothesis\tLabel"
DIAGNOSTIC = {
    "diagnostic.tsv": [
        "index\tsentence1\tsentence2",
        "0\tThe cat sat.\tThe cat did not sit.",
        '1\tIt "rains.\tIt rains.',
    ],
    "diagnostic-full.tsv": [
        _AX_FULL,
        "\t\tNegation\t\tArtificial\tThe cat sat.\tThe cat did not sit.\tcontradiction",
        'Quantifiers\t\t\t\tNews\tIt "rains.\tIt rains.\tentailment',
    ],
}


def write_diagnostic(folder: Path, *names: str) -> Path:
    """Writes AX's files (or those of `names`) into `folder`. Returns it."""
    folder.mkdir(parents=True)
    for name in names or DIAGNOSTIC:
        (folder / name).write_text("\n".join(DIAGNOSTIC[name]) + "\n", encoding="utf8")
    return folder


def write_official(root: Path) -> Path:
    """Writes all nine folders under `root`; RTE with CRLF line ends and blank lines at the end. Returns `root`."""
    for task, files in FILES.items():
        (root / task).mkdir(parents=True)
        for name, lines in files.items():
            end, tail = ("\r\n", "\r\n\r\n") if task == "RTE" else ("\n", "")
            (root / task / name).write_bytes((end.join(lines) + end + tail).encode("utf8"))
    return root
