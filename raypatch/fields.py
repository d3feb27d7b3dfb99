"""What a field of a trial is, and how it is worded: said once, where config.py declares the field."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Role = Literal["block", "factor", "hyperparameter", "repeat"]
"""What a field is in a study: the dataset is the block, the seed the repeat;
factors are compared, hyperparameters tuned (though a study may compare one of those too).
"""

Order = Literal["rising", "falling", "given"]
"""How the levels of a field are put in order: by their number, or as the study lists them."""

METHOD_WORDS = {
    "finetune": "fine-tuning",
    "linear_probe": "linear probe",
    "knn": "nearest neighbours",
    "pretrain": "pretraining",
}
"""How a sentence says the methods."""

HEAD_WORDS = {"linear": "linear head", "mlp": "MLP head", "attention": "attention pooling"}
"""How a sentence says the heads."""

MASK_LOSS_WORDS = {"bce": "cross-entropy", "dice": "soft Dice", "both": "cross-entropy and soft Dice"}
"""How a sentence says the losses of masks."""


@dataclass(frozen=True)
class FieldFacts:
    """What a field is and how its values are worded, for every table, plot and sentence.

    role: what it is in a study. label: the field in a sentence ("Which patch size?").
    phrase: one of its levels in a sentence, {} being the value. order: of its levels.
    unit: of a number, empty for none. percent: a share, which is shown as a percentage.
    words: how a sentence says a value whose name is no word.
    """

    role: Role
    label: str
    phrase: str = "{}"
    order: Order = "given"
    unit: str = ""
    percent: bool = False
    words: Mapping[str, str] = field(default_factory=dict)
