"""MovieLens as tensorflow-datasets prepares it, read without TensorFlow."""

import importlib.resources
import importlib.resources.abc
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from diet_jax.data import movielens
from diet_jax.types import InputError

T = 881362800


def write_100k(folder):
    folder.mkdir()
    flags = ["0"] * 19
    flags[3] = flags[4] = flags[5] = "1"
    (folder / "u.data").write_text(f"1\t10\t5\t{T + 3600}\n2\t20\t3\t{T + 7}\n1\t20\t4\t{T}\n")
    (folder / "u.item").write_bytes(
        f"10|Toy Story (1995)|01-Jan-1995||u|{'|'.join(flags)}\n"
        f"20|Misérables, Les (1958)|01-Jan-1958||u|0|1|{'|'.join(flags[3:])}|0\n".encode("latin-1")
    )
    (folder / "u.user").write_text("1|24|M|technician|85711\n2|53|F|other|T8H1N\n")


def write_1m(folder):
    folder.mkdir()
    (folder / "ratings.dat").write_text(f"1::10::5::{T + 3600}\n2::20::3::{T + 7}\n1::20::4::{T}\n")
    (folder / "movies.dat").write_bytes(
        "10::Toy Story (1995)::Animation|Children's|Comedy\n"
        "20::Misérables, Les (1958)::Drama\n".encode("latin-1")
    )
    (folder / "users.dat").write_text("1::M::24::17::85711\n2::F::53::0::T8H1N\n")


def prepare(folder, name, monkeypatch):
    """Lets tfds' own builder write array_record files from a local copy, with no download."""
    from tensorflow_datasets.core.download import DownloadManager
    from tensorflow_datasets.structured import movielens as tfds_movielens
    from tensorflow_datasets.structured import movielens_parsing

    # Its parser opens files through TensorFlow: the built-in open does the same here.
    gfile = SimpleNamespace(gfile=SimpleNamespace(GFile=open))
    monkeypatch.setattr(movielens_parsing, "tf", SimpleNamespace(io=gfile))
    monkeypatch.setattr(DownloadManager, "download_and_extract", lambda self, url: str(folder))
    # tfds' writing side imports this backport, which it does not declare for this Python.
    monkeypatch.setitem(sys.modules, "importlib_resources", importlib.resources)
    out = folder / "prepared"
    builder = tfds_movielens.Movielens(
        config=f"{name}-ratings", data_dir=out, file_format="array_record"
    )
    builder.download_and_prepare()
    return out


@pytest.mark.parametrize(("name", "write"), [("100k", write_100k), ("1m", write_1m)])
def test_prepared_files_give_what_the_local_copy_gives(tmp_path, monkeypatch, name, write):
    local = tmp_path / f"ml-{name}"
    write(local)
    out = prepare(tmp_path, name, monkeypatch)
    prepared = movielens.read(name, "", 4.0, str(out))
    expected = movielens.read(name, str(local), 4.0, "")
    if name == "1m":  # tfds keeps the age as it is in 1m: already the start of a bracket
        assert prepared.fields["age"].to_list() == ["4", "10", "4"]
    assert prepared.fields.to_dict(as_series=False) == expected.fields.to_dict(as_series=False)
    assert prepared.label.tolist() == expected.label.tolist() == [1, 0, 1]
    assert prepared.time.tolist() == expected.time.tolist() == [T, T + 7, T + 3600]


def test_files_of_another_format_are_named(tmp_path, monkeypatch):
    write_100k(tmp_path / "ml-100k")
    out = prepare(tmp_path, "100k", monkeypatch)
    (info,) = out.glob("movielens/100k-ratings/*/dataset_info.json")
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(InputError) as caught:
        movielens.read("100k", "", 4.0, str(out))
    message = str(caught.value)
    assert "not as array_record" in message
    assert "--file_format=array_record" in message
    assert "\n" not in message


def test_not_prepared_says_how_without_noise(tmp_path):
    code = (
        "import sys\n"
        "from diet_jax.data import movielens\n"
        "from diet_jax.types import InputError\n"
        "try:\n"
        "    movielens.read('1m', '', 4.0, sys.argv[1])\n"
        "except InputError as error:\n"
        "    print(error)\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path / "none")],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    for word in ("movielens/1m-ratings", "tfds build", "array_record", "--config.data.path"):
        assert word in done.stdout
