"""A registered model of questions as MLflow loads it: `mlflow.pyfunc.load_model(uri).predict([{"question": …, "context": …}])`.

The same as `served.py` but for what it is asked, which MLflow takes from the type of `model_input` and checks. It answers with
one `{"answer", "score", "start", "end"}` a question: characters of the context, or an empty answer where there is none.
"""

from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class ServedModel(PythonModel):
    """Loads the folder `model` of the version and answers with it."""

    def load_context(self, context) -> None:
        from roberta_core.inference import load_model

        self.model = load_model(context.artifacts["model"])

    def predict(self, context, model_input: list[dict[str, str]], params=None):
        return self.model.predict(list(model_input))


set_model(ServedModel())
