"""Fine-tuning: a model and transcribed recordings become the same model, trained further."""

from paretone.train.finetune import Finetuned, finetune
from paretone.train.settings import PRECISIONS, Settings
from paretone.train.task import Dev

__all__ = ["PRECISIONS", "Dev", "Finetuned", "Settings", "finetune"]
