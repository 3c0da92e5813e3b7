#!/usr/bin/env bash
# lightning 2.6.6 with PyTorch 2.14.1, a GAN with two optimizers (manual optimization).
#
# Guess: Trainer(max_steps=100) trains on 100 minibatches, and global_step counts them.
# Seen: global_step counts the steps of all optimizers. With one step of D and one of G for each
# minibatch max_steps=100 stops after 50, with five of a critic and one of G after 17: the same
# number is another length of training for each kind of GAN.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet lightning==2.6.6 torch==2.14.1 numpy==2.2.6
CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - <<'PY'
import lightning
import torch


class GAN(lightning.LightningModule):
    def __init__(self, steps):
        super().__init__()
        self.d, self.g = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
        self.automatic_optimization, self.steps, self.minibatches = False, steps, 0

    def configure_optimizers(self):
        return [torch.optim.SGD(net.parameters()) for net in (self.d, self.g)]

    def training_step(self, batch, index):
        self.minibatches += 1
        for optimizer, steps in zip(self.optimizers(), self.steps):
            [optimizer.step() for _ in range(steps)]


for steps, minibatches in ((1, 1), 50), ((5, 1), 17):
    gan = GAN(steps)
    trainer = lightning.Trainer(max_steps=100, accelerator="cpu", logger=False,
                                enable_checkpointing=False, enable_progress_bar=False)
    trainer.fit(gan, torch.utils.data.DataLoader(torch.rand(1000, 1)))
    print(f"steps {steps}: {gan.minibatches} minibatches, global_step {trainer.global_step}")
    assert gan.minibatches == minibatches and trainer.global_step == minibatches * sum(steps)
PY
