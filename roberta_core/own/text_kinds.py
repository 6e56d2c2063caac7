"""Tasks on a text or a pair: one class, several labels, a number."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from roberta_core.errors import BadParams
from roberta_core.finetune.objectives import Classification, Objective, balanced_weights
from roberta_core.finetune.rows import Rows, tokenise
from roberta_core.glue.baselines import tfidf_features
from roberta_core.glue.metrics import measure
from roberta_core.own.kind import COUNTS_HEAD, SHOWN_EXAMPLES, SHOWN_LABELS, Kind, Table, counts_row, excerpt
from roberta_core.own.labels import THRESHOLD, MultiLabel, Number
from roberta_core.own.metrics import NAME_LISTS, label_counts, score_multi_label, score_numbers
from roberta_core.own.texts import Columns, TextRows, label_names, read_texts, unseen_labels


class TextKind(Kind):
    """What the three share."""

    def read(self, file: Path, training: bool = False, may_hide: bool = False) -> TextRows:
        """The rows of a table."""
        asked = self.settings
        columns = Columns(asked.text, asked.label, asked.separator)
        return read_texts(file, asked.kind, columns, may_hide)

    def learn(self, train: TextRows, file: Path) -> None:
        """Takes the labels from the training rows."""
        self.names = label_names(train, self.settings.kind, file)

    def check(self, data: TextRows, file: Path) -> list[str]:
        """One line for each label that training does not know."""
        return unseen_labels(data, self.names, file)

    def scored(self, data: TextRows) -> bool:
        """Whether the rows have labels."""
        return bool(data.labels)

    def rows(self, tokenizer: Tokenizer, data: TextRows, training: bool = False) -> Rows:
        """One row a text."""
        labels = self.ids(data) if training else []
        return tokenise(tokenizer, data.texts, labels, self.settings.max_length, self.settings.token_types)

    def ids(self, data: TextRows) -> list[Any]:
        """Labels as the objective takes them; those that training does not know have ids from `len(names)`."""
        known = {name: at for at, name in enumerate(self.names)}
        if self.settings.kind == "classification":
            return [known.setdefault(each, len(known)) for each in data.labels]
        return [tuple(known.setdefault(name, len(known)) for name in each) for each in data.labels]

    def features(self, train: TextRows, data: TextRows) -> tuple[Any, Any] | None:
        """Bags of words of both; None where training has no word at all (signs alone, say)."""
        if not any(letter.isalnum() for texts in train.texts for text in texts for letter in text):
            return None
        features, (others,) = tfidf_features(train.texts, [data.texts])
        return features, others

    def examples(self, wrong: Sequence[tuple[str, str, str]], title: str) -> Table:
        """Rows that went wrong, as a table."""
        return Table(title, ["text", "label", "prediction"], [list(each) for each in wrong[:SHOWN_EXAMPLES]])


class ClassKind(TextKind):
    """One class a row."""

    weights: tuple[float, ...] = ()

    def learn(self, train: TextRows, file: Path) -> None:
        """Takes the labels, and their weights, from the training rows.

        Raises:
            BadParams: there are weights for another number of labels.
        """
        super().learn(train, file)
        asked = self.settings.class_weights
        if asked == "balanced":
            self.weights = balanced_weights(self.ids(train), len(self.names))
        elif asked != "none":
            if len(asked) != len(self.names):
                raise BadParams(
                    f"{self.settings.name}: class_weights has {len(asked)} numbers, and there are {len(self.names)} labels.",
                    f"Give one for each of {', '.join(self.names[:20])}, in this order.",
                )
            self.weights = tuple(asked)

    def objective(self) -> Objective:
        """Cross-entropy."""
        return Classification(self.settings.name, tuple(self.names), self.weights)

    def decide(self, rows: Rows, outputs: Sequence[np.ndarray], data: TextRows, threshold: float) -> list[int]:
        """The likeliest class."""
        return [int(each.argmax()) for each in outputs]

    def score(self, data: TextRows, guesses: Sequence[int]) -> tuple[dict[str, float], list[str]]:
        """Accuracy, macro F1, Matthews' coefficient."""
        return measure(self.metrics, self.ids(data), guesses)

    def baselines(self, train: TextRows, data: TextRows) -> dict[str, list[int]]:
        """The most frequent class, and logistic regression on TF-IDF."""
        from sklearn.linear_model import LogisticRegression

        ids = self.ids(train)
        most = min(Counter(ids).items(), key=lambda item: (-item[1], item[0]))[0]
        found = {"majority": [most] * len(data)}
        if bags := self.features(train, data):
            model = LogisticRegression(max_iter=1000).fit(bags[0], ids)
            found["tfidf"] = model.predict(bags[1]).tolist()
        return found

    def predictions(
        self, data: TextRows, guesses: Sequence[int], rows: Rows, outputs: Sequence[np.ndarray]
    ) -> tuple[list[str], list[list[Any]]]:
        """Number, label, prediction, probabilities."""
        head = ["index", "label", "prediction", *(f"probability_{name}" for name in self.names)]
        labels = data.labels or [""] * len(data)
        lines = zip(data.lines, labels, guesses, outputs)
        return head, [
            [line, label, self.names[guess], *(f"{value:.6f}" for value in output)]
            for line, label, guess, output in lines
        ]

    def tables(self, data: TextRows, guesses: Sequence[int]) -> list[Table]:
        """The confusion matrix, figures by class, and rows that went wrong."""
        pairs = Counter(zip(data.labels, (self.names[each] for each in guesses)))
        labels = [*self.names, *sorted(set(data.labels) - set(self.names))]
        if len(labels) > SHOWN_LABELS:
            often = Counter(data.labels)
            kept = set(sorted(labels, key=lambda name: (-often[name], name))[: SHOWN_LABELS - 1])
            labels = [*(name for name in labels if name in kept), "others"]
            grouped: Counter = Counter()
            for (label, guess), count in pairs.items():
                grouped[label if label in kept else "others", guess if guess in kept else "others"] += count
            shown = grouped
        else:
            shown = pairs
        matrix = Table(
            "Confusion: labels down, predictions across",
            ["label", *labels],
            [[label, *(shown[label, guess] for guess in labels)] for label in labels],
        )
        there, guessed = Counter(data.labels), Counter(self.names[each] for each in guesses)
        by_class = [counts_row(name, pairs[name, name], guessed[name], there[name]) for name in self.names]
        wrong = [
            (excerpt(" / ".join(text)), label, self.names[guess])
            for text, label, guess in zip(data.texts, data.labels, guesses)
            if label != self.names[guess]
        ]
        tables = [matrix, Table("By class", COUNTS_HEAD, by_class[:SHOWN_LABELS])]
        return tables + ([self.examples(wrong, "The first rows that went wrong")] if wrong else [])


class MultiLabelKind(TextKind):
    """Any number of labels a row."""

    def objective(self) -> Objective:
        """Binary cross-entropy."""
        return MultiLabel(self.settings.name, tuple(self.names))

    def decide(
        self, rows: Rows, outputs: Sequence[np.ndarray], data: TextRows, threshold: float
    ) -> list[tuple[int, ...]]:
        """The labels above one half."""
        return [tuple(np.flatnonzero(each > THRESHOLD).tolist()) for each in outputs]

    def score(self, data: TextRows, guesses: Sequence[tuple[int, ...]]) -> tuple[dict[str, float], list[str]]:
        """Micro and macro F1, exact match."""
        return score_multi_label(self.metrics, self.ids(data), guesses, len(self.names)), []

    def baselines(self, train: TextRows, data: TextRows) -> dict[str, list[tuple[int, ...]]]:
        """The labels that more than half of the rows have (or the most frequent one), and logistic regressions on TF-IDF."""
        from sklearn.linear_model import LogisticRegression

        ids = self.ids(train)
        counts = Counter(each for row in ids for each in row)
        often = [each for each, count in counts.items() if count > len(ids) / 2]
        often = often or [min(counts, key=lambda each: (-counts[each], each))]
        found = {"majority": [tuple(sorted(often))] * len(data)}
        bags = self.features(train, data)
        if bags is None:
            return found
        guesses: list[list[int]] = [[] for _ in range(len(data))]
        for label in range(len(self.names)):
            has = [label in row for row in ids]
            given = np.full(len(data), has[0])
            if len(set(has)) == 2:
                given = LogisticRegression(max_iter=1000).fit(bags[0], has).predict(bags[1])
            for row in np.flatnonzero(given):
                guesses[row].append(label)
        return found | {"tfidf": [tuple(each) for each in guesses]}

    def shown(self, labels: Sequence[str]) -> str:
        """Labels in a cell."""
        return self.settings.separator.join(labels)

    def predictions(
        self, data: TextRows, guesses: Sequence[tuple[int, ...]], rows: Rows, outputs: Sequence[np.ndarray]
    ) -> tuple[list[str], list[list[Any]]]:
        """Number, labels, predictions, how many are right, predicted and there, probabilities.

        Where macro F1 counts, two columns more: the names as JSON lists, which can be told apart whatever the separator.
        """
        by_name = self.settings.metric == "f1_macro"
        head = ["index", "label", "prediction", "right", "predicted", "there"]
        head += [f"probability_{name}" for name in self.names] + list(NAME_LISTS if by_name else ())
        ids = self.ids(data) if data.labels else [()] * len(data)
        lines = []
        for row, (line, label, guess, output) in enumerate(zip(data.lines, ids, guesses, outputs)):
            both = (data.labels[row] if data.labels else (), tuple(self.names[each] for each in guess))
            cells = [line, *map(self.shown, both), *label_counts(label, guess), *(f"{value:.6f}" for value in output)]
            lines.append(cells + [json.dumps(each, ensure_ascii=False) for each in both if by_name])
        return head, lines

    def tables(self, data: TextRows, guesses: Sequence[tuple[int, ...]]) -> list[Table]:
        """Figures by label, and rows that went wrong."""
        named = [tuple(self.names[each] for each in guess) for guess in guesses]
        right, guessed, there = Counter(), Counter(), Counter()
        for labels, guess in zip(data.labels, named):
            right.update(set(labels) & set(guess))
            guessed.update(guess)
            there.update(labels)
        order = sorted({*there, *guessed}, key=lambda name: (-there[name], name))
        by_label = [counts_row(name, right[name], guessed[name], there[name]) for name in order]
        wrong = [
            (excerpt(" / ".join(text)), self.shown(label), self.shown(guess))
            for text, label, guess in zip(data.texts, data.labels, named)
            if set(label) != set(guess)
        ]
        tables = [Table("By label", COUNTS_HEAD, by_label[:SHOWN_LABELS])]
        return tables + ([self.examples(wrong, "The first rows that went wrong")] if wrong else [])


class NumberKind(TextKind):
    """A number a row."""

    mean, spread = 0.0, 1.0

    def learn(self, train: TextRows, file: Path) -> None:
        """Takes mean and spread from the training rows."""
        super().learn(train, file)
        self.mean, self.spread = float(np.mean(train.labels)), float(np.std(train.labels))

    def restore(self, labels: Sequence[str], served: Mapping[str, Any], data: TextRows) -> float:
        """Nothing: `finish` moved mean and spread into the saved model, and its one label names the column."""
        return 0.0

    def check(self, data: TextRows, file: Path) -> list[str]:
        """Any number is one."""
        return []

    def ids(self, data: TextRows) -> list[float]:
        """The numbers themselves."""
        return data.labels

    def objective(self) -> Number:
        """Squared error in spreads."""
        return Number(self.settings.name, self.settings.label[0], self.mean, self.spread)

    def decide(self, rows: Rows, outputs: Sequence[np.ndarray], data: TextRows, threshold: float) -> list[float]:
        """The number itself."""
        return [float(each[0]) for each in outputs]

    def score(self, data: TextRows, guesses: Sequence[float]) -> tuple[dict[str, float], list[str]]:
        """Pearson, Spearman, root mean squared error."""
        return score_numbers(self.metrics, data.labels, guesses)

    def baselines(self, train: TextRows, data: TextRows) -> dict[str, list[float]]:
        """The mean, and ridge regression on TF-IDF."""
        from sklearn.linear_model import Ridge

        found = {"majority": [self.mean] * len(data)}
        if bags := self.features(train, data):
            found["tfidf"] = Ridge().fit(bags[0], train.labels).predict(bags[1]).tolist()
        return found

    def predictions(
        self, data: TextRows, guesses: Sequence[float], rows: Rows, outputs: Sequence[np.ndarray]
    ) -> tuple[list[str], list[list[Any]]]:
        """Number of the row, label, prediction."""
        labels = [f"{each:.6g}" for each in data.labels] or [""] * len(data)
        return ["index", "label", "prediction"], [
            [line, label, f"{guess:.6g}"] for line, label, guess in zip(data.lines, labels, guesses)
        ]

    def tables(self, data: TextRows, guesses: Sequence[float]) -> list[Table]:
        """The rows that are furthest off."""
        order = sorted(range(len(data)), key=lambda row: (-abs(data.labels[row] - guesses[row]), row))
        worst = [
            (excerpt(" / ".join(data.texts[row])), f"{data.labels[row]:.4g}", f"{guesses[row]:.4g}") for row in order
        ]
        return [self.examples(worst, "The rows that are furthest off")]

    def finish(self, model: Any) -> Any:
        """Moves mean and spread into the last layer."""
        self.objective().finish(model)
        return model
