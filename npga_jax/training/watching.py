"""What a run shows while it goes on: its line, its log, pictures, tests on the way."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from npga_jax.core import MetricsLog, Progress, current_rss_mb
from npga_jax.io import write_png
from npga_jax.training.run_folder import CURVE_FILE
from npga_jax.training.settings import TrainConfig
from npga_jax.training.state import TrainState


class Clock:
    """Seconds of training: those of earlier runs count, tests on the way do not."""

    def __init__(self, before: float):
        self._before = before
        self._began = self._now = time.perf_counter()

    def start(self) -> None:
        """Training begins."""
        self._began = self._now = time.perf_counter()

    def tick(self) -> float:
        """Reads the clock: seconds in all."""
        self._now = time.perf_counter()
        return self.seconds

    def leave_out(self, seconds: float) -> None:
        """What has just been spent is no training."""
        self._began += seconds
        self._now = max(self._now, self._began)

    @property
    def seconds(self) -> float:
        """Seconds in all, when the clock was last read."""
        return self._before + self._now - self._began


def _thousands(count: int) -> str:
    return f"{count / 1000:.0f}k" if count >= 10_000 else str(count)


class Watch:
    """Files and lines of one run; nothing here changes the state."""

    def __init__(
        self,
        cfg: TrainConfig,
        folder: Path,
        start: int,
        clock: Clock,
        *,
        preview_fn: Callable[[TrainState], np.ndarray] | None,
        test_fn: Callable[[TrainState], dict[str, float]] | None,
    ):
        """Opens the logs; what they say of steps beyond `start` is taken back."""
        self._cfg, self._folder, self._clock = cfg, folder, clock
        self._preview_fn = preview_fn
        self._test_fn = test_fn if cfg.test_every else None
        self._log = MetricsLog(folder, from_step=start)
        self._curve = None
        if self._test_fn is not None or (folder / CURVE_FILE).exists():
            self._curve = MetricsLog(folder, from_step=start, name=CURVE_FILE)
        self._progress = Progress("training", cfg.steps, unit="steps", start=start)
        self._mark = clock.seconds, start

    def report(self, step: int, values: dict[str, float], max_isects: int) -> None:
        """A line for people and one for metrics.jsonl."""
        seconds, marked = self._mark
        self._mark = self._clock.seconds, step
        rate = (step - marked) / max(self._clock.seconds - seconds, 1e-9)
        self._progress(
            step,
            f"loss {values['loss']:.4f}  psnr {values['psnr']:.2f}  "
            f"alive {_thousands(int(values['num_alive']))}  "
            f"isects {_thousands(int(values['num_isects']))}/"
            f"{_thousands(max_isects)}  {rate:.2f} it/s",
        )
        self._log.write(
            step=step,
            seconds=round(self._clock.seconds, 3),
            it_per_s=round(rate, 4),
            rss_mb=current_rss_mb(),
            **values,
        )

    def skip(self, step: int) -> None:
        """The rate is counted from here: the first step compiles."""
        self._mark = self._clock.seconds, step

    def show(self, state: TrainState, step: int) -> None:
        """A preview picture, where one is due."""
        is_due = step % self._cfg.preview_every == 0 or step == self._cfg.steps
        if self._preview_fn is not None and is_due:
            path = self._folder / "previews" / f"{step:07}.png"
            write_png(path, self._preview_fn(state))

    def is_test_due(self, step: int) -> bool:
        """Whether the state of a step is to be tested, and has not been yet."""
        every = self._cfg.test_every
        if self._curve is None or self._test_fn is None or step == 0:
            return False
        is_due = step % every == 0 or step == self._cfg.steps
        return is_due and step not in self._curve.steps

    def test(self, state: TrainState, step: int) -> None:
        """Measures a state that is there; the time is no training time.

        Raises:
          InputError: as the test does.
        """
        if self._curve is None or self._test_fn is None:
            return
        began = time.perf_counter()
        values = self._test_fn(state)
        seconds = round(self._clock.seconds, 3)
        self._curve.write(step=step, seconds=seconds, **values)
        self._clock.leave_out(time.perf_counter() - began)

    def close(self) -> None:
        """Closes the logs."""
        self._progress.__exit__()
        self._log.close()
        if self._curve is not None:
            self._curve.close()
