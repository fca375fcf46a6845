"""What a training says while it runs, and how it stops."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

from transformers import TrainerCallback

Report = Callable[[dict[str, Any]], None]


class Events(TrainerCallback):
    """Reports every log entry with the step and the speed; stops after the current step on Ctrl-C."""

    def __init__(self, report: Report | None, precision: str) -> None:
        self.report, self.precision, self.stopped = report, precision, False
        self.begun = (0.0, 0)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.begun = (time.perf_counter(), state.global_step)
        self._send({"event": "start", "step": state.global_step, "steps": state.max_steps, "precision": self.precision})

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if not logs or "train_runtime" in logs:
            return
        start, first = self.begun
        pace = (time.perf_counter() - start) / max(1, state.global_step - first)
        values = {k: v for k, v in logs.items() if isinstance(v, int | float)}
        kind = "recall" if any(k.startswith("eval_recall") for k in values) else "step"
        rest = {"steps": state.max_steps, "eta_s": round(pace * (state.max_steps - state.global_step), 1)}
        speed = {"items_per_s": round(2 * args.per_device_train_batch_size / pace, 1)} if pace else {}
        self._send({"event": kind, "step": state.global_step} | rest | speed | values)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.stopped:
            control.should_save = control.should_training_stop = True

    def _send(self, event: dict[str, Any]) -> None:
        if self.report:
            self.report(event)

    @contextlib.contextmanager
    def stop_on_interrupt(self) -> Iterator[None]:
        """The first Ctrl-C finishes the step and saves; a second one stops at once."""

        def stop(*_: Any) -> None:
            if self.stopped:
                raise KeyboardInterrupt
            self.stopped = True
            self._send({"event": "interrupt"})

        try:
            before = signal.signal(signal.SIGINT, stop)
        except ValueError:  # not in the main thread
            yield
            return
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
