"""How fast the scripts train: beside the usual loop, whole, in reduced precision, with threads.

`python benchmark.py` prints four tables, in an hour and a half. Nothing else should run meanwhile.
But for the second table programs run in turn, seven times; medians count.

1. An epoch of binarygan.py, in full and in reduced precision, beside the loop of most GAN
   repositories: a DataLoader that transforms image by image, the generator's graph built (and
   thrown away) in the critic step, gradients accumulated where nobody wants them, the penalty's
   gradient left to autograd, Adam without its fused kernel, `.item()` in every step.
   Networks, objective, minibatch size and number of steps are the same. CPU time of one thread.
2. The main job of binarygan.py, whole, once with each schedule: CPU time of one thread, quality.
3. Short runs of four scripts in full and in reduced precision, one thread.
4. Short runs of binarygan.py with one thread, with two that sleep while they wait, as the scripts
   have it, and with two that spin, PyTorch's default on Linux: alone, and beside a busy program.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision import transforms
from torchvision.datasets import MNIST

import binarygan
import common

ROUNDS = 7
IMAGES = 6_400  # in an epoch: 100 generator and 500 critic steps
CRITIC_STEPS = 5
FEW = 2_000  # images of a short run
HERE = Path(__file__).resolve().parent
RUNS = {  # half a minute each, or less
    "binarygan": "--schedule short --epochs 10", "infogan": "--epochs 1", "bigan": "--epochs 5",
    "wgan_gp_binary_seed": "--epochs 1 --batch-size 32"}
BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"  # ends with us


def in_turn(title: str, programs: dict[str, Callable[[], float]]) -> None:
    """Print the median of the seconds of each, and how many times as fast as the first it is."""
    rounds = [[program() for program in programs.values()] for _ in range(ROUNDS)]
    print(f"\n{title:40}{'seconds':>12}{'times as fast':>16}")
    medians = [statistics.median(seconds) for seconds in zip(*rounds)]
    for name, seconds in zip(programs, medians):
        print(f"{name:40}{seconds:12.2f}{medians[0] / seconds:16.2f}", flush=True)


# ---- the usual loop -----------------------------------------------------------------------------


def networks() -> tuple[nn.Module, nn.Module]:
    """G and D of binarygan.py, the MLPs."""
    torch.manual_seed(0)
    return binarygan.generator("mlp", "none"), binarygan.discriminator("mlp", "none")


def usual_epoch(loader: DataLoader, lr: float) -> None:
    """One epoch of WGAN-GP the usual way."""
    G, D = networks()
    opt_g, opt_d = (torch.optim.Adam(network.parameters(), lr, (0.5, 0.9)) for network in (G, D))

    def fakes(count: int) -> torch.Tensor:
        return binarygan.binary_neuron(G(torch.randn(count, binarygan.LATENT)), 1.0, "sbn")[0]

    step = 0
    for _ in range(CRITIC_STEPS):  # passes: an epoch has a generator step for each minibatch
        for real, _ in loader:
            real, fake = real.flatten(1), fakes(len(real))
            opt_d.zero_grad()
            d_loss = (D(fake).mean() - D(real).mean()
                      + binarygan.PENALTY * binarygan.gradient_penalty(D.forward, real, fake))
            d_loss.backward()
            opt_d.step()
            d_loss.item()
            step += 1
            if step % CRITIC_STEPS == 0:
                opt_g.zero_grad()
                g_loss = -D(fakes(len(real))).mean()
                g_loss.backward()
                opt_g.step()
                g_loss.item()


def our_epoch(images: torch.Tensor, batch_size: int, precision: str, lr: float) -> None:
    """One epoch of binarygan.py."""
    G, D = networks()
    opt_g, opt_d = (binarygan.optimizer(network, lr, "wgan-gp") for network in (G, D))
    losses = binarygan.train_epoch(G, D, opt_g, opt_d, common.minibatches(images, batch_size),
                                   [CRITIC_STEPS] * (len(images) // batch_size), 1.0, "sbn",
                                   "wgan-gp")
    with common.training_precision(precision, G, D):
        torch.stack(list(losses)).mean(0).tolist()


def beside_the_usual_loop() -> None:
    """The first table."""
    options = binarygan.Options(schedule="paper")
    binarize = transforms.Compose([transforms.ToTensor(),
                                   transforms.Lambda(lambda image: (image > 0).float())])
    loader = DataLoader(Subset(MNIST(HERE / "data", transform=binarize, download=True),
                               range(IMAGES)), options.batch_size, shuffle=True, drop_last=True)
    images = (common.load_images(HERE / "data")[0][:IMAGES] > 0).float()

    def cpu_seconds(epoch: Callable, *arguments) -> float:
        start = time.process_time()
        epoch(*arguments, options.lr)
        return time.process_time() - start

    ours = partial(cpu_seconds, our_epoch, images, options.batch_size)
    in_turn(f"an epoch of {IMAGES} images", {
        "usual loop": partial(cpu_seconds, usual_epoch, loader),
        "binarygan.py, full precision": partial(ours, "full"),
        "binarygan.py, reduced precision": partial(ours, "reduced")})


def the_main_job() -> None:
    """The second table: what training with each schedule takes, and what it gives."""
    os.chdir(HERE)  # where data/ is
    print(f"\n{'--neuron sbn':32}{'CPU seconds':>16}{'KL':>16}{'median distance':>16}"
          f"{'first bin':>16}")
    for schedule, precision in (("short", "reduced"), ("short", "full"), ("paper", "full")):
        options = binarygan.Options(neuron="sbn", schedule=schedule, precision=precision)
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(None):
            start = time.process_time()
            results = binarygan.train(options, Path(folder) / "run")
            seconds = time.process_time() - start
        print(f"{schedule + ', ' + precision + ' precision':32}{seconds:16.0f}{results['kl']:16.3f}"
              f"{results['median_distance']:16.2f}{results['histogram_first_bin']:16.3f}",
              flush=True)


# ---- short runs ---------------------------------------------------------------------------------


def training_seconds(name: str, *options: str, **environment: str) -> float:
    """Of a short run of the script in a process of its own, without what comes before and after."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, HERE / f"{name}.py", *RUNS[name].split(), "--train-size",
                        str(FEW), "--device", "cpu", "--out", f"{folder}/run", *options], cwd=HERE,
                       env=os.environ | {"OMP_NUM_THREADS": "1"} | environment, check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return json.loads(Path(folder, "run", "results.json").read_text())["training_seconds"]


def in_reduced_precision() -> None:
    """The third table."""
    for name in RUNS:
        in_turn(f"{name}.py {RUNS[name]}", {
            precision: partial(training_seconds, name, "--precision", precision)
            for precision in ("full", "reduced")})


def with_threads() -> None:
    """The fourth table."""
    run = partial(training_seconds, "binarygan")
    programs = {"one thread": run, "two that sleep": partial(run, OMP_NUM_THREADS="2"),
                "two that spin": partial(run, OMP_NUM_THREADS="2", OMP_WAIT_POLICY="active")}
    in_turn("binarygan.py, alone", programs)
    with subprocess.Popen([sys.executable, "-c", BUSY]) as busy:
        in_turn("binarygan.py, one core busy", programs)
        busy.kill()


if __name__ == "__main__":
    torch.set_num_threads(1)
    beside_the_usual_loop()
    the_main_job()
    in_reduced_precision()
    with_threads()
