#!/usr/bin/env bash
# Pillow 13.0.0, the GIF of a generator's progress, where pictures repeat.
#
# Guess: five pictures of 100 ms each are five frames when they are read back.
# Seen: a picture that is equal to the one before it is no frame, it makes that one last longer.
# Five equal pictures are one frame of 500 ms; black, three times gray, white are three frames of
# 100, 300 and 100 ms. A difference of one gray level in one pixel does make a frame. So where a
# generator has collapsed, or a binary one has come to rest, frame 3 is not epoch 3: count by
# durations.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet pillow==13.0.0
"$folder/venv/bin/python" - <<'PY'
import io

from PIL import Image, ImageSequence


def read_back(pictures):
    file = io.BytesIO()
    pictures[0].save(file, "GIF", save_all=True, append_images=pictures[1:], duration=100)
    return [frame.info["duration"] for frame in ImageSequence.Iterator(Image.open(file))]


black, gray, white = (Image.new("L", (8, 8), level) for level in (0, 128, 255))
other = gray.copy()
other.putpixel((3, 3), 129)
found = {"equal": read_back([gray] * 5), "middle": read_back([black, gray, gray, gray, white]),
         "nearly equal": read_back([gray, other, gray, other, gray])}
print(found)
assert found["equal"] == [500] and found["middle"] == [100, 300, 100]
assert found["nearly equal"] == [100] * 5
PY
