"""Training on pairs: `train` keeps a run folder that can be resumed, `fit` trains a model in memory."""

from n2kit.train.engine import FitResult, fit
from n2kit.train.run import RunResult, train

__all__ = ["FitResult", "RunResult", "fit", "train"]
