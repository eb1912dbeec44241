"""The training loop: steps, progress, checkpoints, previews, growth of capacities."""

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from npga_jax import checkpoint, parallel
from npga_jax.build import make_run_step, measure_isects, padded_capacity
from npga_jax.config import TrainConfig
from npga_jax.data.capture import Capture
from npga_jax.data.loader import prefetch
from npga_jax.data.splits import Split
from npga_jax.run_folder import CHECKPOINTS, MetricsLog
from npga_jax.training import TrainState


class NonFiniteError(FloatingPointError):
    """A step's gradient was not finite; the state before it is intact."""


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _thousands(count: int) -> str:
    return f"{count / 1000:.0f}k" if count >= 10_000 else str(count)


def peak_rss_mb() -> float:
    """Largest resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def current_rss_mb() -> float | None:
    """Resident memory now, in MiB; None where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * resource.getpagesize() / 2**20


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
        preview_fn: Callable[[TrainState], np.ndarray] | None = None,
    ):
        """Prepares a run.

        Args:
          state: where to start, on any device.
          seconds_before: training time of the runs that this one continues.
          preview_fn: makes a picture [H, W, 3] uint8 of a state.
        """
        self.cfg, self.capture, self.split, self.folder = cfg, capture, split, folder
        self.mesh = parallel.make_mesh(cfg.num_devices)
        parallel.check_divisible(cfg.views_per_step, self.mesh)
        self.state = jax.device_put(state, parallel.replicated(self.mesh))
        self.preview_fn = preview_fn
        self.seconds_before = seconds_before
        self.seconds = 0.0
        wanted = cfg.max_isects or padded_capacity(
            measure_isects(cfg, capture, split.train, state)
        )
        self._compile(wanted)

    @property
    def total_seconds(self) -> float:
        """Training time including the runs before."""
        return self.seconds_before + self.seconds

    def _compile(self, max_isects: int) -> None:
        self.max_isects = max_isects
        self.step_fn = parallel.data_parallel(
            make_run_step(
                self.cfg,
                self.capture,
                max_isects=max_isects,
                axis_name=parallel.AXIS_NAME,
            ),
            self.mesh,
        )

    def save(self) -> None:
        """Writes a checkpoint of the state, unless it is not finite."""
        bad = checkpoint.first_non_finite(self.state)
        if bad is not None:
            raise NonFiniteError(f"{bad} is not finite; it was not saved")
        checkpoint.save_state(
            self.folder / CHECKPOINTS, self.state, {"seconds": self.total_seconds}
        )

    def run(self) -> TrainState:
        """Trains to the last step; Ctrl-C saves and passes on."""
        cfg = self.cfg
        start = int(self.state.step)
        log = MetricsLog(self.folder, from_step=start)
        saved = start if start else None
        began = time.perf_counter()
        batches = prefetch(
            self.capture,
            self.split.train,
            seed=cfg.seed,
            views_per_step=cfg.views_per_step,
            start_step=start,
            num_steps=max(cfg.steps - start, 0),
        )
        mark, marked_step = began, start
        try:
            for index, batch in batches:
                batch = parallel.shard_batch(batch, self.mesh)
                self.state, metrics = self.step_fn(self.state, batch)
                done = index + 1
                if done == start + 1:
                    jax.block_until_ready(metrics)
                    mark, marked_step = time.perf_counter(), done
                self.seconds = time.perf_counter() - began
                if done % cfg.log_every == 0 or done in (start + 1, cfg.steps):
                    values = {k: v.item() for k, v in metrics.items()}
                    self._check(values, index, batch)
                    now = time.perf_counter()
                    rate = (done - marked_step) / max(now - mark, 1e-9)
                    mark, marked_step = now, done
                    self.seconds = now - began
                    self._report(log, done, values, rate)
                if done % cfg.save_every == 0:
                    self.save()
                    saved = done
                if done % cfg.preview_every == 0 or done == cfg.steps:
                    self._preview(done)
            if saved != int(self.state.step):
                self.save()
        except KeyboardInterrupt:
            if saved != int(self.state.step):
                self.save()
            print(
                f"\nstopped at step {int(self.state.step)}, saved; go on with "
                f"--resume --output {self.folder}",
                file=sys.stderr,
            )
            raise
        finally:
            batches.close()
            log.close()
        return self.state

    def _check(self, values: dict, index: int, batch) -> None:
        """Stops at a bad number, grows a capacity that was too small."""
        if not values["is_finite"]:
            crash = self.folder / "crash"
            crash.mkdir(exist_ok=True)
            np.savez(crash / f"batch_{index}.npz", **batch._asdict())
            self.save()
            raise NonFiniteError(
                f"the gradient of step {index} is not finite (loss {values['loss']}); "
                f"the state before it is saved, the batch is in {crash}"
            )
        if values["num_dropped"] > 0:
            grown = padded_capacity(values["num_isects"])
            print(
                f"\n{values['num_dropped']} of {values['num_isects']} intersections "
                f"did not fit into {self.max_isects}; going on with {grown} "
                "(set --max-isects to avoid the recompilation)",
                file=sys.stderr,
            )
            self._compile(grown)

    def _report(self, log: MetricsLog, step: int, values: dict, rate: float) -> None:
        cfg = self.cfg
        left = (cfg.steps - step) / rate if rate > 0 else 0.0
        line = (
            f"step {step:,}/{cfg.steps:,}  loss {values['loss']:.4f}  "
            f"psnr {values['psnr']:.2f}  alive {_thousands(values['num_alive'])}  "
            f"isects {_thousands(values['num_isects'])}/"
            f"{_thousands(self.max_isects)}  {rate:.2f} it/s  eta {_duration(left)}"
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
        folder = self.folder / "previews"
        folder.mkdir(exist_ok=True)
        Image.fromarray(self.preview_fn(self.state)).save(folder / f"{step:07}.png")
