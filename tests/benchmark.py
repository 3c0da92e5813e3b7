"""How much faster an epoch of binarygan.py is than the usual loop: `python tests/benchmark.py`.

The usual loop is what most GAN repositories do: a DataLoader that transforms image by image, the
generator's graph built (and thrown away) in the critic step, gradients gathered where nobody wants
them, Adam without its fused kernel, and `.item()` in every step. Networks, objective, minibatch
size and number of steps are the same. Both train in turn, several times, with 5 critic steps to a
generator step throughout; the ratio of the median times is what counts.

Then the critic step of wgan_gp_binary_seed.py, as it is and with nn.LeakyReLU in the critic, beside
a matrix product in the same process: how much of the machine it uses.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision import transforms
from torchvision.datasets import MNIST

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import binarygan  # noqa: E402
import wgan_gp_binary_seed  # noqa: E402

ROUNDS = 5
IMAGES = 6_400  # in an epoch: 100 generator and 500 critic steps
CRITIC_STEPS = 5
GFLOP = 31.2  # in a critic step of wgan_gp_binary_seed.py, by torch.utils.flop_counter
DATA = Path(__file__).resolve().parent.parent / "data"


def usual_loader(batch_size: int) -> DataLoader:
    """Minibatches of binarized images, transformed one by one."""
    binarize = transforms.Compose([transforms.ToTensor(),
                                   transforms.Lambda(lambda image: (image > 0).float())])
    data = Subset(MNIST(DATA, transform=binarize, download=True), range(IMAGES))
    return DataLoader(data, batch_size, shuffle=True, drop_last=True)


def usual_epoch(args, device: torch.device, loader: DataLoader) -> None:
    """One epoch of WGAN-GP the usual way."""
    parts = binarygan.build(args, device)
    G, D = parts["G"], parts["D"]
    opt_g, opt_d = (torch.optim.Adam(network.parameters(), args.lr, (0.5, 0.9))
                    for network in (G, D))

    def fakes():
        z = torch.randn(args.batch_size, binarygan.LATENT, device=device)
        return binarygan.binary_neuron(G(z), 1.0, args.neuron)[0]

    step = 0
    for _ in range(CRITIC_STEPS):  # passes: an epoch has a generator step per minibatch
        for real, _ in loader:
            real = real.view(args.batch_size, -1).to(device)
            fake = fakes()
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


def median_time(call) -> float:
    """The median time of 15 calls in seconds, after 3 more to warm up."""
    times = []
    for _ in range(18):
        start = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[3:])


def critic_step_share(device: torch.device) -> None:
    """Print a critic step's time and its speed beside that of a matrix product."""
    args = wgan_gp_binary_seed.parse_args([])
    matrix = torch.randn(2048, 2048, device=device)
    real, test = torch.rand(128, 784, device=device), torch.rand(50, 784, device=device)
    parts = wgan_gp_binary_seed.build(args, device)
    usual = nn.Sequential(*[nn.LeakyReLU(0.1) if isinstance(layer, wgan_gp_binary_seed.LeakyReLU)
                            else layer for layer in parts["C"]])
    for name, C in (("as it is", parts["C"]), ("with nn.LeakyReLU", usual)):
        peak = 2 * 2.048**3 / median_time(lambda: matrix @ matrix)
        seconds = median_time(lambda: wgan_gp_binary_seed.critic_step(
            args, parts | {"C": C}, real, test))
        print(f"wgan_gp_binary_seed.py, critic step {name}: {1000 * seconds:.0f} ms; "
              f"{GFLOP / seconds:.0f} useful GFLOP/s, matrix product {peak:.0f} GFLOP/s, share "
              f"{GFLOP / seconds / peak:.2f}")


def main() -> None:
    """Time both, in turn, and print the ratio of the medians; then the critic step's share."""
    args = binarygan.parse_args(["--train-size", str(IMAGES), "--epochs", "1"])
    device = binarygan.pick_device(args.device)
    data, loader = binarygan.mnist(DATA, device), usual_loader(args.batch_size)
    binarygan.mnist = lambda *_: data  # loaded, for both
    binarygan.critic_steps = lambda step: CRITIC_STEPS
    binarygan.evaluate = lambda *_: None

    times = {"usual loop": [], "binarygan.py": []}
    for number in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            args.out = Path(folder) / "run"
            for name, epoch in (("usual loop", lambda: usual_epoch(args, device, loader)),
                                ("binarygan.py", lambda: binarygan.train(args))):
                start = time.perf_counter()
                epoch()
                if device.type == "cuda":
                    torch.cuda.synchronize()
                times[name].append(time.perf_counter() - start)
        print(f"round {number + 1}: " +
              ", ".join(f"{name} {seconds[-1]:.1f} s" for name, seconds in times.items()))
    usual, ours = (statistics.median(seconds) for seconds in times.values())
    print(f"medians for an epoch of {IMAGES} images on {device}, {torch.get_num_threads()} CPU "
          f"threads: usual loop {usual:.1f} s, binarygan.py {ours:.1f} s, ratio {usual / ours:.2f}")
    critic_step_share(device)


if __name__ == "__main__":
    main()
