"""Prepares a log on many machines with Apache Beam: the same files as `prepare` makes on one.

    python -m diet_jax.data.beam --config=FILE --data_dir=DIR [--runner=... and other Beam options]
    python -m diet_jax.data.beam --config=FILE --load=DIR/prepared/1.0.0

The first makes a data set of tensorflow-datasets; the second puts it into the config's cache, where
every run of that config finds it. A worker holds some chunks of rows, the distinct values, or what
is known of some of the users: never the log.
"""

import importlib
import importlib.util
import os
import re
import shutil
import tempfile
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from absl import app, flags
from etils import epath
from tensorflow_datasets.core import read_only_builder
from tensorflow_datasets.core.writer import ExampleWriter

from diet_jax import command
from diet_jax.data import beam_steps as do
from diet_jax.data import cache_folder, records, spool, store
from diet_jax.data.prepare import one_at_a_time, readable_errors
from diet_jax.data.source import Reject
from diet_jax.types import Config, InputError

DATA_DIR = flags.DEFINE_string("data_dir", "", "Where the data set goes: a folder, or gs://...")
LOAD = flags.DEFINE_string("load", "", "The folder of a data set to put into the config's cache.")


def prepared(pipeline: Any, job: do.Job, out: str) -> Any:
    """The examples of the prepared log by the number of their first row; the rest goes to `out`."""
    beam = importlib.import_module("apache_beam")

    def each(rows, step: Callable, *sides):
        return rows | step.__name__ >> beam.FlatMap(step, *sides)

    def group(rows, step: Callable, *sides):
        rows = rows | f"by {step.__name__}" >> beam.GroupByKey()
        return rows | step.__name__ >> beam.Map(step, *sides)

    def gather(rows, step: Callable, *sides, name=""):
        """One worker's view of all, for the others."""
        name = name or step.__name__
        rows = rows | f"all for {name}" >> beam.combiners.ToList()
        return beam.pvalue.AsSingleton(rows | name >> beam.Map(step, *sides))

    def with_(step, *sides):
        return step.__name__ >> beam.Map(step, *sides)

    parts = pipeline | beam.Create(range(job.parts)) | "spread parts" >> beam.Reshuffle()
    parts_ = gather(parts | with_(do.look, job), list, name="parts")
    pieces = each(parts, do.read, job, parts_) | "spread pieces" >> beam.Reshuffle()
    done = gather(pieces | with_(do.summary), do.tally, job)
    bad = pieces | "rejects" >> beam.FlatMap(
        lambda p: [(p.part, (p.block, p.rejects))] if p.rejects else []
    )
    group(bad, do.write_rejects, out)

    values = gather(group(each(pieces, do.spell), do.once), do.number, job)
    first = beam.pvalue.AsSingleton(values.pvalue | with_(do.starts, job))
    pieces = pieces | with_(do.translate, values, job)
    ends = gather(pieces | "sample" >> beam.Map(lambda p: do.place(p)[:, :: do.STEP]), do.shares)
    dealt = group(each(pieces, do.deal, ends), do.arrange)
    sizes = gather(dealt | "sizes" >> beam.Map(lambda s: (s[0], len(s[1]))), dict)
    chunks = group(each(dealt, do.align, sizes), do.join)

    times = gather(each(chunks, do.asked, done, job), list, name="times")
    borders = gather(chunks | with_(do.runs, times, job), do.cut, job)
    about = gather(each(chunks, do.labels, borders), do.check_classes, borders, job)
    if spool.counted(job.roles):
        by_value = each(chunks, do.count, job) | "by value" >> beam.GroupByKey()
        both = (chunks, each(by_value, do.counts_before)) | "with counts" >> beam.CoGroupByKey()
        chunks = both | with_(do.fill_counts, job)
    seen = each(chunks, do.observe, borders, first, job)
    words = gather(group(seen, do.admit, job.data.min_count), do.admitted, borders, first)
    scales = ()
    if job.roles.dense:
        fitted = chunks | "first stage" >> beam.Filter(
            lambda chunk, ends: chunk[0] * records.CHUNK < ends[1], borders
        )
        shift = fitted | "first chunk" >> beam.Filter(lambda chunk: chunk[0] == 0)
        shift = beam.pvalue.AsSingleton(shift | with_(do.middle, borders, job))
        scales = gather(fitted | with_(do.powers, borders, shift, job), do.fit, borders, shift, job)
    past, nobody = pipeline | "no past" >> beam.Create([]), -1
    if job.roles.history:
        nobody = beam.pvalue.AsSingleton(values.pvalue | with_(do.no_user, job))
        by_user = each(chunks, do.act, nobody, job) | "by user" >> beam.GroupByKey()
        past = each(by_user, do.pasts, job)
    sides = parts_, done, values, borders, about, words, scales
    _ = pipeline | "one" >> beam.Create([None]) | with_(do.describe, *sides, job, out)
    rows = (chunks, past) | "with past" >> beam.CoGroupByKey()
    return each(rows, do.encode, borders, first, nobody, words, scales, job)


class Prepared(tfds.core.BeamBasedBuilder):
    """A prepared log; an example is some thousand rows, in order of time."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, job: do.Job, **given):
        self.job = job
        super().__init__(file_format="array_record", **given)

    def _info(self) -> tfds.core.DatasetInfo:
        columns = {
            name: tfds.features.Tensor(shape=shape, dtype=store.TYPES[name])
            for name, shape in do.shapes(self.job).items()
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{self.job.name}, prepared by diet_jax.",
            features=tfds.features.FeaturesDict(columns),
            disable_shuffling=True,
            license=self.job.licence,
        )

    def _split_generators(self, dl_manager, pipeline):
        return {"train": prepared(pipeline, self.job, str(self.data_path))}

    def _generate_examples(self):
        raise NotImplementedError

    def _example_writer(self):
        return LocalFirst(file_format=self.info.file_format)


class LocalFirst(ExampleWriter):
    """array_record knows local files only: one for a bucket is written here and copied."""

    def write(self, path, examples):
        if "://" not in str(path):
            return super().write(path, examples)
        with tempfile.TemporaryDirectory() as folder:
            local = epath.Path(folder) / "shard"
            super().write(local, examples)
            local.copy(path)


def build(config: Config, data_dir: str, options: list[str]) -> str:
    """Prepares the log as a data set below `data_dir` (a folder or URL) and returns its folder.

    options: of Beam, as "--runner=DirectRunner". Raises InputError as `prepare` does, if there is
    a data set already, or if Beam is not installed.
    """
    if importlib.util.find_spec("apache_beam") is None:
        raise InputError("apache_beam is not installed; run: pip install -e '.[beam]'")
    job = do.make_job(config)
    builder = Prepared(job=job, data_dir=data_dir)
    if builder.data_path.exists():
        raise InputError(f"{builder.data_dir}: exists; remove it, or set another --data_dir")
    beam_options = importlib.import_module("apache_beam.options.pipeline_options").PipelineOptions
    given = tfds.download.DownloadConfig(beam_options=beam_options(options))
    try:
        builder.download_and_prepare(download_config=given)
    except Exception as error:  # a runner wraps what a worker raises, or only quotes it
        said = "".join(traceback.format_exception(error))
        if found := re.findall(r"InputError: (.*?)(?: \[while running.*)?$", said, re.M):
            raise InputError(found[-1]) from error
        raise
    return str(builder.data_dir)


def from_tfds(folder: str, cache: Path) -> Path:
    """Puts a data set that `build` made into the cache as a prepared log, and returns its folder.

    folder: local. Rows are copied some thousand at a time. Raises InputError if it is no such one.
    """
    here = Path(folder)
    if not (here / "key.txt").exists():
        raise InputError(f"{folder}: no prepared log; give a local DIR/prepared/1.0.0 of this tool")
    key = (here / "key.txt").read_text()
    final, draft = cache / key, cache / f"{key}.copy"
    with readable_errors(cache, "free some space, or set --config.data.cache to another folder"):
        cache.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(cache / f"{key}.lock"):
            if not final.exists():
                shutil.rmtree(draft, ignore_errors=True)
                draft.mkdir()
                copy(here, draft)
                os.replace(draft, final)
    return final


def copy(here: Path, draft: Path) -> None:
    """Writes the files of a prepared log from those of a data set."""
    builder: Any = read_only_builder.builder_from_directory(here)
    log = builder.as_data_source(split="train")
    names = [n for n in store.TYPES if n != "weight" or n in builder.info.features]
    with ExitStack() as stack:
        files = {name: stack.enter_context(open(draft / name, "wb")) for name in names}
        for k in range(len(log)):
            for name, column in log[k].items():
                records.append(files[name], column)
    for name in ("vocabulary.arrow", "manifest.json"):
        shutil.copyfile(here / name, draft / name)
    if rejected := sorted(here.glob("rejected-*.csv")):
        with open(draft / "rejected.csv", "wb") as out:
            out.write(",".join(Reject._fields).encode() + b"\n")
            for file in rejected:
                out.write(file.read_bytes())
    for file in draft.iterdir():
        with open(file, "rb") as written:
            os.fsync(written.fileno())


def main(options: list[str]) -> None:
    config = command.CONFIG.value
    if LOAD.value:
        cache = cache_folder(config.data.cache)
        print(f"Prepared: {command.told(lambda: from_tfds(str(LOAD.value), cache))}")
        return
    folder = command.told(lambda: build(config, str(DATA_DIR.value), options[1:]))
    print(f"Data set: {folder}")
    print(f"Next: python -m diet_jax.data.beam --config=... --load={folder}")


def parse(argv: list[str]) -> list[str]:
    """Takes our own flags out of the command line; the others are Beam's."""
    ours = [a for a in argv[1:] if re.match(r"--(config[.=]|data_dir=|load=|help)", a)]
    command.parse([argv[0], *ours])
    if command.CONFIG.value is None or not (DATA_DIR.value or LOAD.value):
        command.fail("give --config=FILE, and --data_dir=DIR or --load=DIR/prepared/1.0.0")
    return [argv[0], *(a for a in argv[1:] if a not in ours)]


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
