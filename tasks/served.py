"""A registered model as MLflow loads it: `mlflow.pyfunc.load_model(uri).predict(["a text", ...])`.

Models-from-code: MLflow keeps this file's text with the version and no pickle, so loading runs nothing that is not
readable there. The Hugging Face folder lies inside as the artifact `model`; `roberta_core` reads it, and a copy of that
lies inside too. An encoder answers with one vector a text (the mean over its tokens; `roberta fill` fills gaps); a
classifier with one `{"label", "score"}` a text, whose score is a probability, or the value for a regression task, or with a
list of such where a text may have any number of labels; a tagger with a list of entities, each with its characters in the
text. The two texts of a pair have a tab between them. Models that answer questions are served by `served_questions.py`.
"""

from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class ServedModel(PythonModel):
    """Loads the folder `model` of the version and predicts with it."""

    def load_context(self, context) -> None:
        from roberta_core.inference import load_model

        self.model = load_model(context.artifacts["model"])

    def predict(self, context, model_input: list[str], params=None):
        return self.model.predict(list(model_input))


set_model(ServedModel())
