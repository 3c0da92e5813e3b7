"""How fast the scripts train: beside the usual loop, and with another program beside them.

`python benchmark.py` prints two tables, in about 20 minutes. Nothing else should run meanwhile.

1. An epoch of binarygan.py beside the loop of most GAN repositories: a DataLoader that transforms
   image by image, the generator's graph built (and thrown away) in the critic step, gradients
   accumulated where nobody wants them, Adam without its fused kernel, `.item()` in every step.
   Networks, objective, minibatch size and number of steps are the same. Both train in turn, five
   times; the ratio of the median times counts.
2. Steps a second of each script with one thread, with two threads that spin while they wait
   (PyTorch's default on Linux), and with two that sleep (OMP_WAIT_POLICY=passive, which the scripts
   set): alone, and beside a program that keeps one core busy. The last column is the sum of two
   trainings with one thread each, as `--paper --jobs 2` runs them.
"""

import importlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision import transforms
from torchvision.datasets import MNIST

import binarygan
import common

ROUNDS = 5
IMAGES = 6_400  # in an epoch: 100 generator and 500 critic steps
CRITIC_STEPS = 5
SECONDS = 5.0  # of each measurement of the second table
HERE = Path(__file__).resolve().parent
SCRIPTS = ("gan_toy", "wgan_gp_binary_seed", "binarygan", "infogan", "bigan", "cbigan",
           "recurrent_disc", "bigran")
THREADS = {  # number of programs, and what they are told
    "one thread": (1, {"OMP_NUM_THREADS": "1"}),
    "two that spin": (1, {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "active"}),
    "two that sleep": (1, {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"}),
    "two programs": (2, {"OMP_NUM_THREADS": "1"})}


# ---- the usual loop -----------------------------------------------------------------------------


def networks() -> tuple[nn.Module, nn.Module]:
    """G and D of binarygan.py, the MLPs."""
    torch.manual_seed(0)
    return binarygan.generator("mlp", "none"), binarygan.discriminator("mlp", "none")


def usual_epoch(loader: DataLoader, batch_size: int, lr: float) -> None:
    """One epoch of WGAN-GP the usual way."""
    G, D = networks()
    opt_g, opt_d = (torch.optim.Adam(network.parameters(), lr, (0.5, 0.9)) for network in (G, D))

    def fakes() -> torch.Tensor:
        return binarygan.binary_neuron(G(torch.randn(batch_size, binarygan.LATENT)), 1.0, "sbn")[0]

    step = 0
    for _ in range(CRITIC_STEPS):  # passes: an epoch has a generator step for each minibatch
        for real, _ in loader:
            real, fake = real.view(batch_size, -1), fakes()
            opt_d.zero_grad()
            d_loss = (D(fake).mean() - D(real).mean()
                      + binarygan.PENALTY * binarygan.gradient_penalty(D, real, fake))
            d_loss.backward()
            opt_d.step()
            d_loss.item()
            step += 1
            if step % CRITIC_STEPS == 0:
                opt_g.zero_grad()
                g_loss = -D(fakes()).mean()
                g_loss.backward()
                opt_g.step()
                g_loss.item()


def our_epoch(images: torch.Tensor, batch_size: int, lr: float) -> None:
    """One epoch of binarygan.py."""
    G, D = networks()
    opt_g, opt_d = (binarygan.optimizer(network, lr, "wgan-gp") for network in (G, D))
    steps = range(len(images) // batch_size)
    losses = binarygan.train_epoch(G, D, opt_g, opt_d, common.minibatches(images, batch_size),
                                   steps, 1.0, "sbn", "wgan-gp")
    torch.stack(list(losses)).mean(0).tolist()


def beside_the_usual_loop() -> None:
    """Time both, in turn, and print the ratio of the medians."""
    options = binarygan.Options()
    binarize = transforms.Compose([transforms.ToTensor(),
                                   transforms.Lambda(lambda image: (image > 0).float())])
    loader = DataLoader(Subset(MNIST(HERE / "data", transform=binarize, download=True),
                               range(IMAGES)), options.batch_size, shuffle=True, drop_last=True)
    images = (common.mnist(HERE / "data", torch.device("cpu"))[0][:IMAGES] > 0).float()
    binarygan.critic_steps = lambda step: CRITIC_STEPS
    times = {"usual loop": [], "binarygan.py": []}
    for _ in range(ROUNDS):
        for name, epoch in (("usual loop", lambda: usual_epoch(loader, options.batch_size,
                                                               options.lr)),
                            ("binarygan.py", lambda: our_epoch(images, options.batch_size,
                                                               options.lr))):
            start = time.perf_counter()
            epoch()
            times[name].append(time.perf_counter() - start)
    usual, ours = (statistics.median(seconds) for seconds in times.values())
    print(f"medians for an epoch of {IMAGES} images, {torch.get_num_threads()} CPU threads: usual "
          f"loop {usual:.1f} s, binarygan.py {ours:.1f} s, ratio {usual / ours:.2f}", flush=True)


# ---- other programs beside it -------------------------------------------------------------------


class StopWatch:
    """A progress bar that counts steps for SECONDS after the first, prints the rate, and exits."""

    def __init__(self, *_, **__):
        self.desc, self.count, self.start = "", 0, None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def __iter__(self) -> Iterator:
        return iter(())

    def update(self, count: int = 1) -> None:
        now = time.perf_counter()
        if self.start is None:
            self.start = now
        else:
            self.count += count
        if now > self.start + SECONDS:
            print(self.count / (now - self.start), flush=True)
            os._exit(0)

    def set_postfix_str(self, *_) -> None:
        pass


def speed(name: str) -> None:
    """Print how many steps a second the script makes with its defaults, and exit."""
    script = importlib.import_module(name)
    script.tqdm = StopWatch
    common.nearest = lambda queries, references: (  # of the scores before the first step
        torch.zeros(len(queries), dtype=torch.long), torch.zeros(len(queries)))
    os.chdir(HERE)  # where data/ is
    with tempfile.TemporaryDirectory() as folder:
        script.train(script.Options(), Path(folder) / "run")


def beside_other_programs() -> None:
    """Print the second table."""
    print(f"{'steps a second':32}" + "".join(f"{threads:>16}" for threads in THREADS))
    for neighbor in ("alone", "one core busy"):
        busy = None
        if neighbor != "alone":
            busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for name in SCRIPTS:
            rates = []
            for count, settings in THREADS.values():
                programs = [subprocess.Popen([sys.executable, __file__, name], text=True,
                                             env=os.environ | settings, stdout=subprocess.PIPE,
                                             stderr=subprocess.DEVNULL) for _ in range(count)]
                rates.append(sum(float(program.communicate()[0].splitlines()[-1])
                                 for program in programs))
            print(f"{name + ', ' + neighbor:32}" + "".join(f"{rate:16.1f}" for rate in rates),
                  flush=True)
        if busy:
            busy.kill()


if __name__ == "__main__":
    if sys.argv[1:]:
        speed(sys.argv[1])
    else:
        beside_the_usual_loop()
        beside_other_programs()
