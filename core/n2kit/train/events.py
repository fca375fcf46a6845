"""What a training says while it runs, and how it stops."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import torch
from transformers import TrainerCallback

from n2kit.train import distributed
from n2kit.utils.signals import signal_handlers

EventHandler = Callable[[dict[str, Any]], None]
EVERY_SECONDS = 10.0  # there is a log entry this often, however few steps that are
SIGNALS = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C, and what a scheduler sends


class Events(TrainerCallback):
    """Reports every log entry with the step and the speed; stops after the current step on Ctrl-C or SIGTERM.

    Of several processes only the first reports, and all stop when one is told to.

    Args:
        remark: what is to be known of this training from its start.
    """

    def __init__(
        self, report: EventHandler | None, precision: str, grad_cache: int | None = None, remark: str | None = None
    ) -> None:
        self.report, self.precision, self.remark, self.stopped = report, precision, remark, False
        self.how = {"grad_cache": grad_cache} if grad_cache else {}
        self.begun, self.logged = (0.0, 0), 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.logged = time.perf_counter()
        self.begun = (self.logged, state.global_step)
        how = self.how | ({"processes": distributed.world_size()} if distributed.world_size() > 1 else {})
        about = {"step": state.global_step, "steps": state.max_steps, "precision": self.precision}
        self._send({"event": "start"} | about | how)
        if self.remark is not None:
            self.note(self.remark)

    def pace(self, state: Any, items: int) -> dict[str, float]:
        """`eta_s`, `items_per_s` where a step takes so many `items`, and `memory_gb`: the device's, or on a CPU this process's."""
        start, first = self.begun
        pace = (time.perf_counter() - start) / max(1, state.global_step - first)
        taken = torch.cuda.memory_reserved() if torch.cuda.is_initialized() else psutil.Process().memory_info().rss
        return {
            "eta_s": round(pace * (state.max_steps - state.global_step), 1),
            "items_per_s": round(items / pace, 1),
            "memory_gb": round(taken / 1e9, 3),
        }

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        self.logged = time.perf_counter()
        if not logs or "train_runtime" in logs:
            return
        values = {k: v for k, v in logs.items() if isinstance(v, int | float)}
        kind = "recall" if any(k.startswith("eval_") for k in values) else "step"
        self._send({"event": kind, "step": state.global_step, "steps": state.max_steps} | values)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        late = time.perf_counter() - self.logged >= EVERY_SECONDS
        self.stopped, late = distributed.any_rank([self.stopped, late], args.device)
        # Before a validation, too: it may be what ends the training.
        control.should_log |= late or self.stopped or control.should_evaluate
        if self.stopped:
            control.should_save = control.should_training_stop = True

    def note(self, text: str) -> None:
        """A remark for people, which is also kept with the events."""
        self._send({"event": "note", "text": text})

    def _send(self, event: dict[str, Any]) -> None:
        if self.report and distributed.is_main():
            self.report(event)

    @contextlib.contextmanager
    def stop_on_signal(self) -> Iterator[None]:
        """The first signal finishes the step and saves; a second one stops at once."""

        def stop(*_: Any) -> None:
            if self.stopped and distributed.world_size() > 1:
                return  # a launcher passes the signal on that the terminal has sent already
            if self.stopped:
                raise KeyboardInterrupt
            self.stopped = True
            self._send({"event": "interrupt"})

        with signal_handlers(stop, *SIGNALS):
            yield
