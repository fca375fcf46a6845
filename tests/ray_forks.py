"""Ray whose Python workers are forks: a cold start of each costs seconds. `-m ray_forks MODULE …` is `-m MODULE …` with such a Ray.

This file stands in the place of Ray's own script that starts a worker; it runs without any import of Ray.
"""

from __future__ import annotations

import os
import runpy
import sys

import stand_ins

SERVER = "FORKS_OF_RAY"  # environment variable: the server of the forks


def quick_workers() -> None:
    """Let the Ray that this process starts have forks of the server of this process for workers."""
    from ray._private.parameter import RayParams

    import forks

    os.environ[SERVER] = forks.NAME[1:]
    plain = RayParams.__init__

    def with_forks(self: RayParams, *arguments: object, **options: object) -> None:
        plain(self, *arguments, **options)
        self.setup_worker_path = __file__

    RayParams.__init__ = with_forks  # type: ignore[method-assign]


if __name__ == "__main__":
    if SERVER in os.environ:  # as Ray calls it: with options of its own, a script, and the script's arguments
        script = next(n for n, word in enumerate(sys.argv) if n and not word.startswith("-"))
        stand_ins.stand_for("\0" + os.environ[SERVER], sys.argv[script:])
    quick_workers()
    _, module, *rest = sys.argv
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
