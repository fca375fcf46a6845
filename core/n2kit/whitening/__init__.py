"""Late fusion by whitening: the text's and the image's vector, each whitened by pairs in closed form, side by side; see docs/fit.md."""

from n2kit.whitening.fit import FittedModel, fit
from n2kit.whitening.run import FitResult, fit_bundle

__all__ = ["FitResult", "FittedModel", "fit", "fit_bundle"]
