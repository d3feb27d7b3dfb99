"""How a trial gets from a model to predictions: by which method, with which head."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, model_validator

from raypatch.fields import HEAD_WORDS, METHOD_WORDS, FieldFacts

KNN_FIELDS = ("k", "distance", "vote", "vote_temperature")
"""Fields that only nearest neighbours read."""


class MethodFields(BaseModel):
    """Fields of the method, of the head that it trains, and of neighbours that vote."""

    method: Annotated[str, FieldFacts("factor", "training method", words=METHOD_WORDS)] = Field(
        "finetune",
        description="finetune trains all weights, linear_probe only the head on frozen features, knn asks"
        " the most similar training images, pretrain learns without labels; or module:NAME.",
    )
    head: Annotated[
        Literal["linear", "mlp", "attention"],
        FieldFacts("factor", "head", words=HEAD_WORDS),
    ] = Field(
        "linear",
        description="What makes logits of features: one layer; mlp, a hidden layer of the same width with GELU;"
        " attention, a learned query that pools the tokens.",
    )
    k: Annotated[
        int,
        FieldFacts("hyperparameter", "number of neighbours", "{} neighbours", "rising", "images"),
    ] = Field(11, ge=1, description="knn only: training images that vote.")
    distance: Annotated[
        Literal["euclidean", "cosine"],
        FieldFacts("hyperparameter", "distance", "{} distance"),
    ] = Field("euclidean", description="knn only: what is small between the features of similar images.")
    vote: Annotated[
        Literal["plain", "weighted"],
        FieldFacts("hyperparameter", "vote", "{} vote"),
    ] = Field(
        "plain",
        description="knn only: every neighbour counts one, or exp(s / vote_temperature) of its similarity s:"
        " the cosine, or minus the Euclidean distance.",
    )
    vote_temperature: Annotated[
        float,
        FieldFacts("hyperparameter", "vote temperature", "vote temperature {}", "rising"),
    ] = Field(0.1, gt=0, description="knn with a weighted vote: the smaller, the more the nearest ones count.")

    @model_validator(mode="after")
    def _fields_fit_the_method(self) -> Self:
        if self.method == "knn" and self.head != "linear":
            raise ValueError(f"head={self.head} goes with a method that trains one, not with knn; leave it out")
        if self.method in ("finetune", "linear_probe", "pretrain"):
            for name in KNN_FIELDS:
                value = getattr(self, name)
                if value != type(self).model_fields[name].default:
                    raise ValueError(f"{name}={value} goes with method=knn, not with {self.method}; leave it out")
        if self.vote == "plain" and self.vote_temperature != type(self).model_fields["vote_temperature"].default:
            raise ValueError(
                f"vote_temperature={self.vote_temperature} goes with vote=weighted; set that, or leave it out",
            )
        return self
