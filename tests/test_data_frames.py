"""What is written in pieces is read as a whole, however many pieces there are."""

import polars as pl
import small_logs
from small_logs import RICH, load, rich_log, source

from diet_jax.data import frames


def test_pieces_come_back_as_one_frame(tmp_path):
    whole = pl.DataFrame({"value": ["", "a", "Amélie", "x" * 40, "b"], "field": [0, 1, 0, 2, 1]})
    frames.write(tmp_path / "f", (whole[at : at + 2] for at in (0, 2, 4)))
    assert frames.read(tmp_path / "f").equals(whole)
    frames.write(tmp_path / "none", [whole[:0]])
    assert frames.read(tmp_path / "none").equals(whole[:0])


def test_a_piece_takes_no_more_room_than_its_own_texts(tmp_path):
    """Though Polars leaves what it gathers where the whole column is."""
    many = pl.Series("value", [f"{k:050d}" for k in range(10_000)])
    frames.write(tmp_path / "f", (pl.DataFrame(many.gather([7 * k])) for k in range(10)))
    assert (tmp_path / "f").stat().st_size < 10_000
    assert frames.read(tmp_path / "f")["value"].to_list() == [f"{7 * k:050d}" for k in range(10)]


def test_a_vocabulary_in_pieces_is_the_same(tmp_path, monkeypatch):
    one, streams = source(rich_log(60), roles=RICH), []
    for piece in (1 << 20, 3):
        monkeypatch.setattr(frames, "PIECE", piece)
        streams.append(load(one, tmp_path))
    whole, pieces = streams
    assert len(whole.values) > 12 and list(pieces.values) == list(whole.values)
    assert pieces.row_field.tolist() == whole.row_field.tolist()
    for a, b in zip(*map(small_logs.columns, streams), strict=True):
        assert a.tolist() == b.tolist()
