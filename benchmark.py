"""How fast the scripts train: beside the usual loop, and with another program beside them.

`python benchmark.py` prints three tables, in about an hour. Nothing else should run meanwhile.

1. An epoch of binarygan.py, in full and in reduced precision, beside the loop of most GAN
   repositories: a DataLoader that transforms image by image, the generator's graph built (and
   thrown away) in the critic step, gradients accumulated where nobody wants them, the penalty's
   gradient left to autograd, Adam without its fused kernel, `.item()` in every step.
   Networks, objective, minibatch size and number of steps are the same. All train in turn, seven
   times, in one thread; the median of the CPU times counts.
2. The main job of binarygan.py, whole, with each schedule: CPU time of one thread, and quality.
3. Steps a second of each script with one thread, with two threads that spin while they wait
   (PyTorch's default on Linux), and with two that sleep (OMP_WAIT_POLICY=passive, which the scripts
   set; gan_toy.py sets one thread): alone, and beside a program that keeps one core busy. Then the
   sum of two trainings with one thread each, as reproduce.py runs them; and one thread in reduced
   precision (gan_toy.py has none).
"""

import importlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, redirect_stdout
from dataclasses import replace
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
SECONDS = 2.0  # of each measurement of the third table
HERE = Path(__file__).resolve().parent
SCRIPTS = ("gan_toy", "wgan_gp_binary_seed", "binarygan", "infogan", "bigan", "cbigan",
           "recurrent_disc", "bigran")
THREADS = {  # number of programs, and what they are told
    "one thread": (1, {"OMP_NUM_THREADS": "1"}),
    "two that spin": (1, {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "active"}),
    "two that sleep": (1, {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"}),
    "two programs": (2, {"OMP_NUM_THREADS": "1"}),
    "one, reduced": (1, {"OMP_NUM_THREADS": "1", "PRECISION": "reduced"})}
BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"  # ends with us


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


def our_epoch(images: torch.Tensor, batch_size: int, lr: float, precision: str) -> None:
    """One epoch of binarygan.py."""
    G, D = networks()
    opt_g, opt_d = (binarygan.optimizer(network, lr, "wgan-gp") for network in (G, D))
    losses = binarygan.train_epoch(G, D, opt_g, opt_d, common.minibatches(images, batch_size),
                                   [CRITIC_STEPS] * (len(images) // batch_size), 1.0, "sbn",
                                   "wgan-gp")
    with common.training_precision(precision, G, D):
        torch.stack(list(losses)).mean(0).tolist()


def beside_the_usual_loop() -> None:
    """Time all in turn, and print the medians and their ratios to the usual loop's."""
    options = binarygan.Options(schedule="paper")
    binarize = transforms.Compose([transforms.ToTensor(),
                                   transforms.Lambda(lambda image: (image > 0).float())])
    loader = DataLoader(Subset(MNIST(HERE / "data", transform=binarize, download=True),
                               range(IMAGES)), options.batch_size, shuffle=True, drop_last=True)
    images = (common.load_images(HERE / "data")[0][:IMAGES] > 0).float()
    programs = {"usual loop": lambda: usual_epoch(loader, options.lr)} | {
        f"binarygan.py, {precision} precision":
            lambda precision=precision: our_epoch(images, options.batch_size, options.lr, precision)
        for precision in ("full", "reduced")}
    times = {name: [] for name in programs}
    for _ in range(ROUNDS):
        for name, epoch in programs.items():
            start = time.process_time()
            epoch()
            times[name].append(time.process_time() - start)
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    print(f"an epoch of {IMAGES} images{'':10}CPU seconds, one thread{'':10}times as fast")
    for name, seconds in medians.items():
        print(f"{name:32}{seconds:26.2f}{medians['usual loop'] / seconds:23.2f}", flush=True)


def the_main_job() -> None:
    """Train with each schedule, and print what it takes and what it gives."""
    os.chdir(HERE)  # where data/ is
    print(f"{'--neuron sbn':32}{'CPU seconds':>16}{'KL':>16}{'median distance':>16}"
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


# ---- other programs beside it -------------------------------------------------------------------


class StopWatch:
    """A progress bar that stops its program before the first step, until SIGCONT comes.

    Then it counts the steps of SECONDS, from the next one on, prints the rate, and stops it again.
    """

    def __init__(self, *_, total: int = 0, initial: int = 0, **__):
        self.n, self.total, self.start, self.count = initial, total, None, 0
        os.kill(os.getpid(), signal.SIGSTOP)

    def update(self, count: int = 1) -> None:
        now = time.perf_counter()
        self.n += count
        if self.start is None:
            self.start, self.count = now, 0
            return
        self.count += count
        if now > self.start + SECONDS:
            print(self.count / (now - self.start), file=sys.__stdout__, flush=True)
            self.start = None
            os.kill(os.getpid(), signal.SIGSTOP)

    def set_postfix_str(self, *_, **__) -> None:
        pass


def be_measured(name: str) -> None:
    """Train the script with its defaults, for `measure`."""
    script = importlib.import_module(name)
    script.tqdm = StopWatch
    script.critic_steps = lambda *_: CRITIC_STEPS  # where there are some: no blocks of 100
    sys.stdout = open(os.devnull, "w")  # only the rates are printed
    common.nearest = lambda queries, references: (  # of the scores before the first step
        torch.zeros(len(queries), dtype=torch.long), torch.zeros(len(queries)))
    os.chdir(HERE)  # where data/ is
    options = script.Options(**{"schedule": "paper"} if name == "binarygan" else {}, epochs=1000)
    if "precision" in vars(options):
        options = replace(options, precision=os.environ.get("PRECISION", "full"))
    with tempfile.TemporaryDirectory() as folder:
        script.train(options, Path(folder) / "run")


def measure(programs: list[subprocess.Popen]) -> float:
    """Continue these programs until they stop themselves; the sum of their steps a second."""
    for program in programs:
        program.send_signal(signal.SIGCONT)
    for program in programs:
        os.waitpid(program.pid, os.WUNTRACED)
    return sum(float(program.stdout.readline()) for program in programs)


def beside_other_programs() -> None:
    """Print the third table."""
    print(f"{'steps a second':32}" + "".join(f"{threads:>16}" for threads in THREADS))
    for name in SCRIPTS:
        with ExitStack() as stack:
            def start(*arguments: str, **settings: str) -> subprocess.Popen:
                program = subprocess.Popen(
                    [sys.executable, *arguments], env=os.environ | settings, text=True,
                    stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
                stack.callback(program.wait)
                stack.callback(program.kill)  # a stopped program would stay for ever
                return program

            groups = []
            for count, settings in THREADS.values():
                groups.append([start(__file__, name, **settings) for _ in range(count)])
                for program in groups[-1]:
                    os.waitpid(program.pid, os.WUNTRACED)  # until it is ready
            for neighbor in ("alone", "one core busy"):
                if neighbor != "alone":
                    start("-c", BUSY)
                rounds = [[measure(group) for group in groups] for _ in range(ROUNDS)]
                print(f"{name + ', ' + neighbor:32}"
                      + "".join(f"{statistics.median(rates):16.3g}" for rates in zip(*rounds)),
                      flush=True)


if __name__ == "__main__":
    if sys.argv[1:]:
        be_measured(sys.argv[1])
    else:
        torch.set_num_threads(1)
        beside_the_usual_loop()
        the_main_job()
        beside_other_programs()
