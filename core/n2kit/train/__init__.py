"""Training on pairs: `train` keeps a run folder that can be resumed, `train_model` trains a model in memory."""

from n2kit.train.engine import TrainingResult, train_model
from n2kit.train.run import RunResult, train
from n2kit.utils.callable_package import make_callable

make_callable(__name__, "n2kit.api.work")

__all__ = ["RunResult", "TrainingResult", "train", "train_model"]
