"""The training loop: steps, progress, checkpoints, previews, growth of capacities."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from npga_jax.core import (
    CHECKPOINTS,
    Batch,
    InputError,
    Interrupts,
    MetricsLog,
    checkpoint,
    current_rss_mb,
    duration,
    memory,
)
from npga_jax.data import (
    Capture,
    Split,
    expression_codes,
    frame_weights,
    load_batch,
    plan_step,
    prefetch,
)
from npga_jax.io import write_png
from npga_jax.rasterizer import padded_capacity
from npga_jax.training import parallel, refinement
from npga_jax.training.build import make_isects_fn, make_run_step, stage_at
from npga_jax.training.run_folder import CURVE_FILE
from npga_jax.training.settings import TrainConfig
from npga_jax.training.step import TrainState, average_in

ISECTS_SLACK = 1.1
"""Room that a changed cloud must leave; else a larger capacity is compiled for."""
LESS_MEMORY = (
    "Start a new run with a lower --capture.width, --gaussians.capacity, "
    "--views-per-step or --detail.hidden; what was saved is intact."
)
_MOST_UNCHECKED = 100
"""Steps after which is looked at what they reported, logged or not."""


class NonFiniteError(InputError):
    """Training has diverged, or its data are damaged."""


def _thousands(count: int) -> str:
    return f"{count / 1000:.0f}k" if count >= 10_000 else str(count)


class Trainer:
    """Runs steps on a state until told to stop; all its files go to one folder."""

    def __init__(
        self,
        cfg: TrainConfig,
        capture: Capture,
        split: Split,
        folder: Path,
        state: TrainState,
        *,
        seconds_before: float = 0.0,
        max_isects: int = 0,
        preview_fn: Callable[[TrainState], np.ndarray] | None = None,
        test_fn: Callable[[TrainState], dict[str, float]] | None = None,
    ):
        """Prepares a run.

        Args:
          state: where to start, on any device.
          seconds_before: training time of the runs that this one continues.
          max_isects: capacity that those runs came to; 0: unknown.
          preview_fn: makes a picture [H, W, 3] uint8 of a state.
          test_fn: measures a state; what it takes is no training time.
        """
        self.cfg, self.capture, self.split, self.folder = cfg, capture, split, folder
        self.mesh = parallel.make_mesh(cfg.num_devices)
        parallel.check_divisible(cfg.views_per_step, self.mesh)
        self.state = jax.device_put(state, parallel.replicated(self.mesh))
        self.preview_fn, self.test_fn = preview_fn, test_fn
        self.seconds_before = seconds_before
        self.seconds = 0.0
        self._saved_step = int(state.step)  # Nothing is lost with it.
        self._has_warned = False
        self._averaged_after = math.ceil(cfg.average_from * cfg.steps)
        self._average_fn = jax.jit(average_in, donate_argnums=0)
        self._weights = None
        if cfg.balance > 0:
            codes = expression_codes(capture, split.train)
            self._weights = frame_weights(codes, cfg.balance)
        self.stage = stage_at(cfg, int(state.step))
        self._isects_fn = self._make_isects_fn()
        known = max(cfg.max_isects, max_isects)
        self._set_room(known or padded_capacity(self._isects_fn(self.state)))

    def _make_isects_fn(self) -> Callable[[TrainState], int]:
        return make_isects_fn(
            self.cfg,
            self.capture,
            self.split.train,
            downscale=self.stage.downscale,
        )

    @property
    def total_seconds(self) -> float:
        """Training time including the runs before."""
        return self.seconds_before + self.seconds

    def _set_room(self, max_isects: int) -> None:
        """The next step is compiled for this capacity, and for the stage as it is."""
        self.max_isects = max_isects
        self.refine_fn: refinement.Refiner | None = None
        self.step_fn: Callable | None = None

    def _compile_step(self, batch: Batch) -> Callable:
        """The compiled step.

        Raises:
          InputError: the machine has too little memory for it; the state is saved.
        """
        step_fn = make_run_step(
            self.cfg,
            self.capture,
            max_isects=self.max_isects,
            axis_name=parallel.AXIS_NAME,
            stage=self.stage,
        )
        jitted = parallel.data_parallel(step_fn, self.mesh)
        compiled = jitted.lower(self.state, batch).compile()
        try:
            memory.check_program(compiled, "a training step", LESS_MEMORY)
        except InputError:
            self.save()
            raise
        return compiled

    def _enter_stage(self, step: int) -> None:
        """Compiles anew where images become larger or a loss joins in."""
        stage = stage_at(self.cfg, step)
        if stage == self.stage:
            return
        is_resized = stage.downscale != self.stage.downscale
        self.stage = stage
        max_isects = self.max_isects
        if is_resized:
            self._isects_fn = self._make_isects_fn()
            max_isects = max(max_isects, padded_capacity(self._isects_fn(self.state)))
        self._set_room(max_isects)

    def _change_cloud(self, step: int) -> None:
        """Density control after a step, where one is due."""
        event = refinement.event_at(self.cfg, step)
        if event is None:
            return
        if self.refine_fn is None:
            self.refine_fn = refinement.Refiner(
                self.cfg, self.capture, self.stage, self.max_isects
            )
        self.state, report = self.refine_fn(self.state, self.split.train, event)
        self.state = jax.device_put(self.state, parallel.replicated(self.mesh))
        print(
            f"\nstep {step:,}: {report.added} Gaussians added, {report.dropped} "
            f"dropped, {int(self.state.alive.sum())} of {self.state.alive.shape[0]} "
            "slots in use"
            + (f", {report.wanted} more found none" if report.wanted else ""),
            file=sys.stderr,
        )
        wanted = self._isects_fn(self.state)
        if wanted * ISECTS_SLACK > self.max_isects:
            self._set_room(padded_capacity(wanted))

    def save(self) -> None:
        """Writes a checkpoint of the state, unless there is one.

        Raises:
          NonFiniteError: if the state is not finite; it is not saved then.
        """
        if int(self.state.step) == self._saved_step:
            return
        bad = checkpoint.first_non_finite(self.state)
        if bad is not None:
            raise NonFiniteError(
                f"{bad} is not finite at step {int(self.state.step)}: training has "
                "diverged. That was not saved; earlier checkpoints are intact. Lower "
                "the step sizes (--optim)."
            )
        checkpoint.save_state(
            self.folder / CHECKPOINTS,
            self.state,
            {"seconds": self.total_seconds, "max_isects": self.max_isects},
        )
        self._saved_step = int(self.state.step)

    def _batches(self, start: int) -> Iterator[tuple[int, Batch]]:
        """Batches from step `start` on, on the devices.

        When one cannot be read, the state is saved.
        """
        batches = prefetch(
            self.capture,
            self.split.train,
            seed=self.cfg.seed,
            views_per_step=self.cfg.views_per_step,
            start_step=start,
            num_steps=max(self.cfg.steps - start, 0),
            weights=self._weights,
            place=partial(parallel.shard_batch, mesh=self.mesh),
        )
        try:
            yield from batches
        except InputError:
            self.save()
            raise
        finally:
            batches.close()

    def run(self) -> TrainState:
        """Trains to the last step; Ctrl-C saves after the step in hand and passes on.

        Raises:
          InputError: if a step's gradient is not finite, a batch cannot be read, or
            the disk is full; in all cases a checkpoint is left to go on from.
          KeyboardInterrupt: when stopped by Ctrl-C; Stopped by SIGTERM.
        """
        cfg = self.cfg
        start = int(self.state.step)
        log = MetricsLog(self.folder, from_step=start)
        curve = self._open_curve(start)
        batches = self._batches(start)
        unchecked = []
        began = time.perf_counter()
        mark, marked_step = began, start
        try:
            with Interrupts() as interrupts:
                if self._is_test_due(curve, start):
                    pause = self._test(curve, start, began)
                    began, mark = began + pause, mark + pause
                for index, batch in batches:
                    self._enter_stage(index)
                    if self.step_fn is None:
                        self.step_fn = self._compile_step(batch)
                    self.state, metrics = self.step_fn(self.state, batch)
                    done = index + 1
                    unchecked.append((index, metrics))
                    if done > self._averaged_after:
                        count = np.float32(done - self._averaged_after)
                        self.state = self._average_fn(self.state, count)
                    if done == start + 1:
                        jax.block_until_ready(metrics)
                        mark, marked_step = time.perf_counter(), done
                    self.seconds = time.perf_counter() - began
                    is_stopped = interrupts.requested
                    is_last = is_stopped or done == cfg.steps
                    is_saved = is_last or done % cfg.save_every == 0
                    is_logged = is_last or done % cfg.log_every == 0
                    is_logged |= done == start + 1
                    is_tested = not is_stopped and self._is_test_due(curve, done)
                    is_seen = is_logged or is_saved or is_tested
                    if is_seen or len(unchecked) == _MOST_UNCHECKED:
                        self._check(unchecked)
                        unchecked.clear()
                    if is_logged:
                        values = {k: v.item() for k, v in metrics.items()}
                        now = time.perf_counter()
                        rate = (done - marked_step) / max(now - mark, 1e-9)
                        mark, marked_step = now, done
                        self.seconds = now - began
                        self._report(log, done, values, rate)
                    self._change_cloud(done)
                    if done == cfg.steps > self._averaged_after:
                        self.state = self.state._replace(params=self.state.average)
                    if is_saved:
                        self.save()
                    if done % cfg.preview_every == 0 or done == cfg.steps:
                        self._preview(done)
                    if is_tested:
                        pause = self._test(curve, done, began)
                        began, mark = began + pause, mark + pause
                    if is_stopped:
                        break
        finally:
            batches.close()
            log.close()
            if curve is not None:
                curve.close()
        if interrupts.requested:
            print(
                f"\nstopped at step {self._saved_step}, saved; go on with "
                f"experiments/train.py --resume --output {self.folder}",
                file=sys.stderr,
            )
        interrupts.raise_if_requested()
        return self.state

    def _check(self, outcomes: list[tuple[int, Any]]) -> None:
        """Stops at a bad step, grows a capacity that was too small.

        Args:
          outcomes: steps, and the metrics that they returned.
        """
        names = ("is_finite", "loss", "num_dropped", "num_isects", "num_invalid")
        outcomes = jax.device_get(
            [(index, {name: m[name] for name in names}) for index, m in outcomes]
        )
        for index, outcome in outcomes:
            if not outcome["is_finite"]:
                self._stop_at(index, float(outcome["loss"]))
        invalid = max(int(m["num_invalid"]) for _, m in outcomes)
        if invalid and not self._has_warned:
            self._has_warned = True
            print(
                f"\nup to {invalid} Gaussians were not finite, or too large to draw, "
                "and were left out (num_invalid in metrics.jsonl); said once",
                file=sys.stderr,
            )
        dropped = sum(int(m["num_dropped"]) for _, m in outcomes)
        if dropped:
            grown = padded_capacity(max(int(m["num_isects"]) for _, m in outcomes))
            print(
                f"\n{dropped} intersections of {len(outcomes)} step(s) did not fit in "
                f"{self.max_isects} a view; going on with {grown} (set --max-isects to "
                "avoid the recompilation)",
                file=sys.stderr,
            )
            self._set_room(grown)

    def _stop_at(self, step: int, loss: float) -> None:
        crash = self.folder / "crash"
        crash.mkdir(exist_ok=True)
        plan = plan_step(
            step,
            seed=self.cfg.seed,
            train=self.split.train,
            views_per_step=self.cfg.views_per_step,
            weights=self._weights,
        )
        path = crash / f"batch_{step}.npz"
        np.savez(path, **load_batch(self.capture, *plan)._asdict())
        self.state = self.state._replace(halted=np.zeros((), bool))
        self.save()
        raise NonFiniteError(
            f"the gradient of step {step} is not finite (loss {loss}): training has "
            f"diverged, or its data are damaged. What was trained before is saved. "
            f"Lower the step sizes (--optim), or look into its batch, {path}."
        )

    def _report(self, log: MetricsLog, step: int, values: dict, rate: float) -> None:
        cfg = self.cfg
        left = (cfg.steps - step) / rate if rate > 0 else 0.0
        line = (
            f"step {step:,}/{cfg.steps:,}  loss {values['loss']:.4f}  "
            f"psnr {values['psnr']:.2f}  alive {_thousands(values['num_alive'])}  "
            f"isects {_thousands(values['num_isects'])}/"
            f"{_thousands(self.max_isects)}  {rate:.2f} it/s  eta {duration(left)}"
        )
        if sys.stderr.isatty():
            print(f"\r{line:<100}", end="", file=sys.stderr, flush=True)
        elif step % (10 * cfg.log_every) == 0 or step in (1, cfg.steps):
            print(line, file=sys.stderr, flush=True)
        log.write(
            step=step,
            seconds=round(self.total_seconds, 3),
            it_per_s=round(rate, 4),
            rss_mb=current_rss_mb(),
            **values,
        )

    def _preview(self, step: int) -> None:
        if self.preview_fn is None:
            return
        path = self.folder / "previews" / f"{step:07}.png"
        write_png(path, self.preview_fn(self.state))

    def _open_curve(self, start: int) -> MetricsLog | None:
        """The log of the tests, if there are any."""
        path = self.folder / CURVE_FILE
        if not path.exists() and (self.test_fn is None or not self.cfg.test_every):
            return None
        return MetricsLog(self.folder, from_step=start, name=CURVE_FILE)

    def _is_test_due(self, curve: MetricsLog | None, step: int) -> bool:
        """Whether the state of a step is to be tested, and has not been yet."""
        every = self.cfg.test_every
        if curve is None or self.test_fn is None or not every or step == 0:
            return False
        return (step % every == 0 or step == self.cfg.steps) and step not in curve.steps

    def _test(self, curve: MetricsLog, step: int, began: float) -> float:
        """Measures the state; gives the seconds that it took.

        Raises:
          InputError: as `test_fn` does; the state is saved before.
        """
        jax.block_until_ready(self.state)
        now = time.perf_counter()
        self.seconds = now - began
        try:
            values = self.test_fn(self.state)
        except InputError:
            self.save()
            raise
        curve.write(step=step, seconds=round(self.total_seconds, 3), **values)
        return time.perf_counter() - now
