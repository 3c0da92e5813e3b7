"""The pages tell the truth: links, pictures, commands, code and the exercises' patches."""

import importlib
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest
import torch
from conftest import ROOT, SHORT, UNTRAINED
from PIL import Image
from torchvision import datasets

import binarygan
import common
import reproduce

PAGES = ["README.md", "docs/practice.md", "docs/teaching.md",
         *(f"docs/{name}.md" for name in SHORT), *(f"docs/answers/{name}.md" for name in SHORT)]
PATCHES = sorted(ROOT.glob("docs/patches/*.patch"))
pages = pytest.mark.parametrize("page", PAGES)
scripts = pytest.mark.parametrize("name", SHORT)


def anchors(text: str) -> set[str]:
    """What GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def exercises(page: str) -> list[str]:
    """The titles of a page's exercises, without their time and difficulty."""
    titles = re.findall(r"^### (\d+\. .+)$", (ROOT / page).read_text(), re.M)
    return [re.sub(r" \(.*\)$", "", title) for title in titles]


def git(*words: str, folder) -> None:
    done = subprocess.run(["git", *map(str, words)], cwd=folder, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_every_page_is_here_and_no_other():
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    assert {path.relative_to(ROOT).as_posix() for path in found} == {*PAGES}
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


def test_readme_begins_with_a_picture_and_the_commands():
    """Within the first hundred words; and the page of a script begins with its picture."""
    words = (ROOT / "README.md").read_text().split()[:100]
    assert "pytest" in words and "binarygan.py" in words and "gan_toy.py" in words
    for name in SHORT:
        _, _, picture, *_ = (ROOT / f"docs/{name}.md").read_text().splitlines()
        assert picture.startswith("!["), name


@pages
def test_links_lead_somewhere_and_pictures_are_there(page):
    text = (ROOT / page).read_text()
    folder = (ROOT / page).parent
    links = re.findall(r"\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"", text)
    links = [link or picture for link, picture in links]
    assert links
    for link in links:
        if link.startswith("http"):
            continue
        target, _, anchor = link.partition("#")
        path = (folder / target) if target else ROOT / page
        assert path.exists(), link
        if anchor:
            assert anchor in anchors(path.read_text()), link


def test_every_picture_is_shown_and_all_are_small():
    text = "".join((ROOT / page).read_text() for page in PAGES)
    pictures = [*(ROOT / "assets").iterdir()]
    assert not [picture.name for picture in pictures if f"assets/{picture.name}" not in text]
    assert sum(picture.stat().st_size for picture in pictures) < 5_000_000


@pages
def test_commands_are_accepted(page, tmp_path, monkeypatch):
    """But for those with a word to fill in, such as --resume FOLDER or --seed S."""
    monkeypatch.chdir(tmp_path)
    text = (ROOT / page).read_text()
    commands = re.findall(r"python (\w+)\.py((?: --?[\w-]+(?: [\w./-]+)*)*)", text)
    assert commands or page.startswith("docs/answers")
    for name, options in commands:
        if name in SHORT and "--resume" not in options and not re.search(r" [A-Z]", options):
            script = importlib.import_module(name)
            monkeypatch.setattr(script, "train", lambda *_: {})
            script.main(shlex.split(options))


@pages
def test_commands_of_whole_papers_are_accepted(page, tmp_path, monkeypatch):
    """They list trainings, which the scripts accept."""
    monkeypatch.chdir(tmp_path)
    begun = []
    monkeypatch.setattr(reproduce, "run_all", lambda commands, *_: begun.append(commands) or [])
    text = (ROOT / page).read_text().replace(" \\\n       ", "")  # a command of two lines
    commands = re.findall(r"python reproduce\.py((?: '[^']+'| [\w./-]+)+)", text)
    for command in [command for command in commands if not re.search(" [A-Z]", command)]:
        reproduce.main(shlex.split(command))
        for training in begun.pop().values():
            _, script, *options = training
            module = importlib.import_module(script.removesuffix(".py"))
            monkeypatch.setattr(module, "train", lambda *_: {})
            module.main(options)


@pages
def test_code_compiles(page):
    for code in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.S):
        compile(code, page, "exec")


@scripts
def test_exercises_have_answers(name):
    page, answers = f"docs/{name}.md", f"docs/answers/{name}.md"
    assert len(exercises(page)) == 3 and exercises(page) == exercises(answers)
    for title in re.findall(r"^### \d+\. .+$", (ROOT / page).read_text(), re.M):
        assert re.search(r"\(.*(second|minute|hour).*, (easy|medium|hard)\)$", title), title
    assert "```" not in (ROOT / page).read_text().partition("\n## Exercises\n")[2]  # to be written


def test_patches_are_linked_and_each_applies_to_its_script(tmp_path):
    text = "".join((ROOT / page).read_text() for page in PAGES)
    for patch in PATCHES:
        assert f"patches/{patch.name})" in text
        folder = tmp_path / patch.stem
        folder.mkdir()
        for script in ROOT.glob("*.py"):
            shutil.copy(script, folder)
        git("apply", patch, folder=folder)
        changed = [path for path in folder.glob("*.py")
                   if path.read_text() != (ROOT / path.name).read_text()]
        (path,) = changed
        assert patch.name.startswith(path.stem)
        compile(path.read_text(), path.name, "exec")


@pages
def test_patches_apply_in_the_order_of_the_page(page, tmp_path):
    """Within an exercise one patch may follow another, or be taken back."""
    for section in re.split(r"^##+ ", (ROOT / page).read_text(), flags=re.M):
        if commands := re.findall(r"^    git (apply.*)$", section, re.M):
            for script in ROOT.glob("*.py"):
                shutil.copy(script, tmp_path)
        for command in commands:
            *options, patch = shlex.split(command)
            git(*options, ROOT / patch, folder=tmp_path)


def test_patches_apply_to_a_checkout_as_windows_makes_it(tmp_path):
    """There git gives text files CRLF; .gitattributes keeps the patches as they are."""
    origin, clone = tmp_path / "origin", tmp_path / "clone"
    (origin / "docs").mkdir(parents=True)
    for path in (ROOT / ".gitattributes", *ROOT.glob("*.py")):
        shutil.copy(path, origin)
    shutil.copytree(ROOT / "docs" / "patches", origin / "docs" / "patches")
    git("init", "-q", folder=origin)
    git("add", ".", folder=origin)
    git("-c", "user.name=x", "-c", "user.email=x", "commit", "-qm", "all", folder=origin)
    git("-c", "core.autocrlf=true", "clone", "-q", "-c", "core.autocrlf=true", origin, clone,
        folder=tmp_path)
    assert b"\r\n" in (clone / "gan_toy.py").read_bytes()
    for patch in PATCHES:
        git("apply", f"docs/patches/{patch.name}", folder=clone)
        git("apply", "-R", f"docs/patches/{patch.name}", folder=clone)


@scripts
def test_samples_from_a_checkpoint(name, short, tmp_path, monkeypatch):
    """The page's few lines, tried on a run."""
    text = (ROOT / f"docs/{name}.md").read_text()
    _, found, rest = text.partition("\n## Samples from a checkpoint\n")
    if name in UNTRAINED:
        assert not found
        return
    code = re.search(r"```python\n(.*?)```", rest, re.S)[1]
    assert len(code.splitlines()) <= 6 and "FOLDER" in code
    short(name, whole=name == "gan_toy")("--epochs", "1")
    monkeypatch.chdir(tmp_path)
    variables = {}
    exec(code.replace(f"runs/{name}/FOLDER", "run"), variables)
    assert list(tmp_path.glob("*.png"))
    assert not any(getattr(value, "requires_grad", False) for value in variables.values())


@pytest.mark.filterwarnings("ignore:__array__")  # matplotlib and torch about an array's copy
@scripts
def test_paper_pasted_into_a_notebook(name, tmp_path, monkeypatch):
    """The page's cell as it stands, but for numbers of steps: it needs no other file of ours."""
    text = (ROOT / f"docs/{name}.md").read_text().partition("\n## Paste it into a notebook\n")[2]
    cell = re.search(r"```python\n(.*?)```", text, re.S)[1]
    imports, comment, lines = re.split(r"((?:^# .*\n)+)", cell, flags=re.M)
    assert f"{name}.py" in comment
    paper = (ROOT / f"{name}.py").read_text().partition("\n# ---- run")[0]
    paper = re.sub(r"^(import common|from common import .*)\n", "", paper, flags=re.M)
    paper = re.sub(r"^@dataclass.*\nclass Options:\n(\n|    .*\n)+", "", paper, flags=re.M)
    few = SimpleNamespace(data=torch.randint(256, (300, 28, 28), dtype=torch.uint8),
                          targets=torch.arange(300) % 10)
    monkeypatch.setattr(datasets, "MNIST", lambda root, download: few)
    monkeypatch.setattr(plt, "show", lambda: plt.savefig(tmp_path / "shown.png", dpi=20))
    monkeypatch.setitem(sys.modules, "common", None)
    variables = {"__name__": name}
    exec(compile(imports + paper, name, "exec"), variables)
    variables |= SHORT[name][1] | {"critic_steps": lambda *_: 1} | {"SAMPLES": 50}
    exec(re.sub(r"(range\(|\] \* )\d+", r"\g<1>2", lines), variables)
    assert (tmp_path / "shown.png").exists()
    if name == "binarygan":  # nothing between black and white
        colors = plt.gca().images[0].make_image(plt.gcf().canvas.renderer)[0][..., 0]
        assert set(colors.flat) == {0, 255}
    plt.close("all")


def test_snippets_of_the_readme(short, tmp_path, monkeypatch):
    """Run twice, as a cell in a notebook may be: the second time the folder is not empty."""
    monkeypatch.chdir(tmp_path)
    short("binarygan")
    options = binarygan.Options
    monkeypatch.setattr(binarygan, "Options", lambda **given: options(
        **given, batch_size=32, train_size=64, device="cpu"))
    shown = []
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(version_info=(9, 0)))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(Image=shown.append))
    train, draw = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    exec(train, {})
    (picture,) = shown
    assert Path(picture).exists()
    with pytest.raises(FileExistsError):
        exec(train, {})
    exec(draw, {})
    assert Path("samples.png").exists()


def test_own_pictures_become_a_data_set(tmp_path, monkeypatch):
    """The lines of docs/practice.md, on pictures of two sizes; then load_images reads them."""
    monkeypatch.chdir(tmp_path)
    for i in range(40):
        path = Path("pictures", str(i % 10), f"{i}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (28 + i % 2, 28 + i % 2), (5 * i, 5 * i, 5 * i)).save(path)
    exec(re.search(r"```python\n(.*?)```", (ROOT / "docs/practice.md").read_text(), re.S)[1], {})
    train_x, train_y, test_x, test_y = common.load_images("mine")
    assert train_x.shape == (36, 784) and test_x.shape == (4, 784)
    values = {round(x.mean().item() * 51): y for x, y in zip(
        torch.cat([train_x, test_x]), torch.cat([train_y, test_y]).tolist())}
    assert values == {i: i % 10 for i in range(40)}


def test_one_digit_and_the_way_between_two_images(short, tmp_path, monkeypatch):
    """The other lines of docs/practice.md, on a short run."""
    code = re.findall(r"```python\n(.*?)```", (ROOT / "docs/practice.md").read_text(), re.S)[1]
    short("cbigan", whole=False)("--epochs", "1")
    monkeypatch.chdir(tmp_path)
    variables = {}
    exec(code.replace("runs/cbigan/FOLDER", "run"), variables)
    assert Image.open("sevens.png").size == (466, 466)
    a, b, way = (variables[name] for name in ("a", "b", "way"))
    assert torch.allclose(way[0], a) and torch.allclose(way[-1], b) and not torch.equal(a, b)


def test_readme_tells_of_every_script():
    text = (ROOT / "README.md").read_text()
    for name in SHORT:
        row = re.search(rf"^\| \[`{name}.py`\]\(docs/{name}.md\) \|.*$", text, re.M)
        assert row and re.search(rf"^    python {name}.py .* [\d.]+ +\w+ ", text, re.M), name
    assert not [name for name in reproduce.PAPERS if f"reproduce.py {name}" not in
                text + (ROOT / f"docs/{name}.md").read_text()]
