"""Models: built, loaded, saved, fitted."""

from __future__ import annotations

from n2kit import builder
from n2kit.api.in_python import in_python
from n2kit.bundle import io
from n2kit.whitening.fit import fit as fit_by_whitening

build = in_python(builder.build)
load = in_python(io.load)
save = in_python(io.save)
fit = in_python(fit_by_whitening)
