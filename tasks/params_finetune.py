"""The part of params.yaml about fine-tuning that every kind of task shares. `tasks.params` has the whole."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tasks.params_data import Positive, Section, Share

Weights = Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=2)]


class Options(Section):
    """What a recipe may have beside the paper's values. All are off by default."""

    keep_best: bool = Field(
        False, description="Score dev after every epoch and keep the best epoch's weights; false: the last step's."
    )
    patience: Annotated[int, Field(ge=0)] = Field(
        0, description="With keep_best: end after so many epochs in a row without a gain; 0: never earlier."
    )
    layer_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="Each layer's learning rate is this times that of the layer above it; the head has the whole."
    )
    frozen_layers: Annotated[int, Field(ge=0)] | None = Field(
        None, description="The embeddings and so many of the lowest layers are not trained; null: all are."
    )
    reinit_layers: Annotated[int, Field(ge=0)] = Field(
        0, description="So many of the top layers are drawn anew before training (Zhang et al. 2021)."
    )
    class_weights: Literal["none", "balanced"] | Weights = Field(
        "none",
        description="How much the rows of each label count in the loss: balanced, each label the same in all; or a number a label, in the labels' order.",
    )
    delete_words: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="Chance of each word of a training text to be left out, drawn anew in every epoch (EDA)."
    )
    swap_words: Share = Field(
        0.0, description="Share of the words of a training text that change places with another one (EDA)."
    )
    clip_norm: Annotated[float, Field(ge=0)] = Field(
        0.0, description="The gradient's norm is brought down to this; 0: never, as in the paper."
    )

    @model_validator(mode="after")
    def _patience_of_what(self) -> "Options":
        if self.patience and not self.keep_best:
            raise ValueError("patience needs keep_best: the last step's weights have no best epoch")
        return self


Grid = Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]
Batches = Annotated[list[Positive], Field(min_length=1)]
