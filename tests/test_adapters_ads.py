"""Public logs of ads and shops: a few rows as they are downloaded, and what becomes of them."""

import datetime as dt
import gzip

import polars as pl
import pytest

from diet_jax.data.adapters import avazu, criteo, kuairand, taobao
from diet_jax.data.clean import clean
from diet_jax.data.source import Block, Dense, Field, History, Part
from diet_jax.types import InputError


def whole(source) -> pl.DataFrame:
    """All blocks of all parts; every column that a role names is there, and no row is refused."""
    blocks = [block for part in source.parts for block in part.blocks()]
    assert not any(block.rejects for block in blocks)
    frame = pl.concat([block.frame for block in blocks])
    roles = source.roles
    named = [field.name for field in roles.fields if not field.derived]
    needed = {roles.label, roles.time, roles.user, *named, *(d.name for d in roles.dense)}
    assert needed <= set(frame.columns)
    assert len(set(named)) == len(named)
    assert not {roles.label, roles.time} & {*named, *(d.name for d in roles.dense)}
    return frame


def write(path, *lines, end="\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(line + end for line in lines).encode()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


def refused(words, read, path, **options):
    """The one line of the error that reading the whole log, side tables too, ends with."""
    with pytest.raises(InputError) as caught:
        whole(read(str(path), **options))
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


CLICK = (
    "0\t1\t1\t5\t0\t1382\t4\t15\t2\t181\t1\t2\t\t2\t68fd1e64\t80e26c9b\tfb936136\t7b4723c4\t"
    "25c83c98\t7e0ccccf\tde7995b8\t1f89b562\ta73ee510\ta8cd5504\tb2cb9c98\t37c9c164\t2824a5f6\t"
    "1adce6ef\t8ba8b39a\t891b62e7\te5ba7672\tf54016b9\t21ddcdc9\tb1252a9d\t07b5194c\t\t3a171ecb\t"
    "c5c50484\te8b83407\t9727dd16"
)
EMPTY = "1\t\t-3" + "\t" * 37


@pytest.mark.parametrize(
    ("file", "given"),
    [("train.txt", ""), ("train.txt.gz", ""), ("train.txt", "train.txt"), ("few.txt", "few.txt")],
)
def test_criteo_challenge(tmp_path, file, given):
    write(tmp_path / file, CLICK, EMPTY)
    source = criteo.read(str(tmp_path / given))
    frame = whole(source)
    assert source.name == "Criteo Display Ads"
    assert frame["label"].to_list() == ["0", "1"]
    assert frame["I1"].to_list() == ["1", None]
    assert frame["I2"].to_list() == ["1", "-3"]
    assert frame["I12"].to_list() == [None, None]
    assert frame["I13"].to_list() == ["2", None]
    assert frame["C1"].to_list() == ["68fd1e64", None]
    assert frame["C22"].to_list() == [None, None]
    assert frame["C26"].to_list() == ["9727dd16", None]
    assert frame["time"].to_list() == [0, 0]
    assert frame["user"].n_unique() == 1
    assert source.roles.dense[0] == Dense("I1", "log", 0.0)
    assert [f.name for f in source.roles.fields] == [f"C{i}" for i in range(1, 27)]
    assert {f.hashed for f in source.roles.fields} == {0}
    assert source.roles.history is None


def test_criteo_days_and_their_hashing(tmp_path):
    write(tmp_path / "day_0", CLICK, EMPTY)
    write(tmp_path / "day_1.gz", CLICK)
    source = criteo.read(str(tmp_path), days=2)
    assert source.name == "Criteo 1TB"
    assert whole(source)["time"].to_list() == [0, 0, 86_400]
    assert {f.hashed for f in source.roles.fields} == {2**20}
    assert {f.hashed for f in criteo.read(str(tmp_path), days=1, hashed=9).roles.fields} == {9}
    alone = criteo.read(str(tmp_path / "day_1.gz"))
    assert whole(alone)["time"].to_list() == [86_400]


@pytest.mark.parametrize(
    ("file", "rows", "times"),
    [
        ("train.txt", [1, 22_920_310, 45_840_617, 99_999_999], [0, 302_400, 604_799, 604_799]),
        ("day_3", [2_400, 2_401, 204_846_845, 300_000_000], [0, 1, 85_352, 86_399]),
    ],
)
def test_criteo_time_is_made_of_the_row_number(tmp_path, monkeypatch, file, rows, times):
    part = Part(
        file, (file,), lambda: iter([Block(pl.DataFrame({"label": rows}), pl.Series(rows))])
    )
    monkeypatch.setattr(criteo, "delimited", lambda *_, **__: part)
    (made,) = criteo.read(str(write(tmp_path / file, CLICK))).parts
    (block,) = made.blocks()
    start = 3 * 86_400 if file == "day_3" else 0
    assert block.frame["time"].to_list() == [start + t for t in times]


def test_criteo_row_numbers_go_past_rows_that_cannot_be_read(tmp_path):
    (part,) = criteo.read(str(write(tmp_path / "train.txt", CLICK, "0\t1", EMPTY))).parts
    (block,) = part.blocks()
    assert block.rows.to_list() == [1, 3]
    assert [(r.where, r.row) for r in block.rejects] == [(part.where, 2)]


@pytest.mark.parametrize(
    ("files", "options", "words"),
    [
        ((), {}, ("no train.txt and no day_0", "Criteo")),
        (("day_0", "day_2"), {"days": 3}, ("no day_1 ", "1tb", "days", "Terabyte")),
        (("day_0",), {"days": 2}, ("no day_1 ",)),
        (("day_0",), {"name": "kaggle"}, ("no train.txt", "Kaggle")),
        (("train.txt",), {"name": "1tb", "days": 0}, ("no day_0",)),
        (("train.txt",), {"name": "2tb"}, ("'2tb'", "1tb")),
    ],
)
def test_criteo_says_what_is_missing(tmp_path, files, options, words):
    for file in files:
        write(tmp_path / file, CLICK)
    refused(words, criteo.read, tmp_path, **options)


AVAZU = (
    "id,click,hour,C1,banner_pos,site_id,site_domain,site_category,app_id,app_domain,app_category,"
    "device_id,device_ip,device_model,device_type,device_conn_type,C14,C15,C16,C17,C18,C19,C20,C21",
    "1000009418151094273,0,14102100,1005,0,1fbe01fe,f3845767,28905ebd,ecad2386,7801e8d9,07d7df22,"
    "a99f214a,ddd2926e,44956a24,1,2,15706,320,50,1722,0,35,-1,79",
    "10000371904215119486,1,14103023,1005,0,1fbe01fe,f3845767,28905ebd,ecad2386,7801e8d9,07d7df22,"
    "b3cf8def,8a4875bd,8a4875bd,1,0,15704,320,50,1722,0,35,100084,79",
)


@pytest.mark.parametrize(
    ("file", "given"), [("train.csv", ""), ("train.gz", ""), ("train", "train")]
)
def test_avazu(tmp_path, file, given):
    write(tmp_path / file, *AVAZU, end="\r\n")
    source = avazu.read(str(tmp_path / given))
    frame = whole(source)
    assert frame["click"].to_list() == ["0", "1"]
    assert frame["time"].to_list() == [dt.datetime(2014, 10, 21), dt.datetime(2014, 10, 30, 23)]
    assert frame["user"].to_list() == ["ddd2926e_44956a24", "b3cf8def"]
    assert frame["C20"].to_list() == ["-1", "100084"]
    assert frame["C21"].to_list() == ["79", "79"]
    made = [f for f in source.roles.fields if f.derived]
    assert made == [Field("hour", derived="hour"), Field("weekday", derived="weekday")]
    assert len(source.roles.fields) == 23
    assert "id" not in frame.columns


def rejected(source):
    rejects = [r for part in source.parts for block in part.blocks() for r in block.rejects]
    return [(r.row, r.column, r.value, r.reason) for r in rejects]


def test_avazu_hour_that_is_none_is_rejected(tmp_path):
    empty = AVAZU[1].replace("14102100", "")
    write(tmp_path / "train.csv", *AVAZU, AVAZU[1].replace("14102100", "14102125"), empty)
    source = avazu.read(str(tmp_path))
    assert rejected(source) == [(3, "hour", "14102125", "is no hour")]
    ((_, _, _, rejects),) = clean(source.parts, source.roles)
    assert [(r.row, r.reason) for r in rejects] == [
        (3, "is no hour"),
        (4, "the value is missing"),
    ]


def test_avazu_says_what_is_missing(tmp_path):
    refused(("no train.csv or train.gz", "Kaggle"), avazu.read, tmp_path)
    refused(("'x'",), avazu.read, tmp_path, name="x")
    test_set = [line.replace("click,", "").replace("3,0,1", "3,1") for line in AVAZU[:2]]
    write(tmp_path / "train.csv", *test_set)
    refused(("train.csv", "no column 'click'", "Kaggle"), avazu.read, tmp_path)


LOG = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,"
    "long_view,play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,"
    "is_rand,tab"
)
USERS = (
    "user_id,user_active_degree,is_lowactive_period,is_live_streamer,is_video_author,"
    "follow_user_num,follow_user_num_range,fans_user_num,fans_user_num_range,friend_user_num,"
    "friend_user_num_range,register_days,register_days_range,"
    + ",".join(f"onehot_feat{i}" for i in range(18)),
    '0,full_active,0,0,0,5,"(0,10]",4,"[1,10)",0,0,107,91-180,0,1,17,638,2,0,1,6,184,6,3,0,0,0,0,0,'
    "0,0",
    '3,UNKNOWN,0,0,1,386,"(250,500]",4,"[1,10)",2,"[1,5)",327,181-365,0,3,25,1021,0,0,1,6,230,7,1,'
    "1,,,,,,",
)
VIDEOS = (
    "video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,"
    "server_width,server_height,music_id,music_type,tag",
    "10,123,NORMAL,2022-04-10,LongImport,0.0,87433.0,720.0,1280.0,9155697141,9.0,39",
    '1071,3,AD,2022-04-09,ShortImport,0.0,,720.0,1280.0,6618412736,4.0,"12,65"',
)


def kuai(folder, variant="pure", splits=("",)):
    """One row a log file, all of them clicked but the random one; video 77 is in no table."""
    first = "3,1071,20220408,1600,{},1,0,0,0,0,0,1,175045,87433,0,0,0,0,1"
    for split in splits:
        write(
            folder / f"log_standard_4_08_to_4_21_{variant}{split}.csv",
            *(LOG, first.format(1_649_408_076_860)),
        )
        write(
            folder / f"log_standard_4_22_to_5_08_{variant}{split}.csv",
            *(LOG, "0,77,20220422,1900,1650624412388,1,1,0,0,0,0,0,1385,209900,0,0,0,0,4"),
        )
    write(
        folder / f"log_random_4_22_to_5_08_{variant}.csv",
        *(LOG, "9,10,20220422,2000,1650630976017,0,0,0,0,0,0,0,0,65400,0,0,0,1,0"),
    )
    write(folder / f"user_features_{variant}.csv", *USERS)
    write(folder / f"video_features_basic_{variant}.csv", *VIDEOS)
    return folder


def test_kuairand_joins_its_tables_and_keeps_the_order(tmp_path):
    kuai(tmp_path / "KuaiRand-Pure" / "data")
    source = kuairand.read(str(tmp_path / "KuaiRand-Pure"))
    frame = whole(source)
    assert source.name == "KuaiRand-pure"
    assert frame["user_id"].to_list() == ["3", "0"]
    assert frame["time_ms"].to_list() == ["1649408076860", "1650624412388"]
    assert frame["is_click"].to_list() == ["1", "1"]
    assert frame["author_id"].to_list() == ["3", None]
    assert frame["tag"].to_list() == ["12,65", None]
    assert frame["music_type"].to_list() == ["4.0", None]
    assert frame["user_active_degree"].to_list() == ["UNKNOWN", "full_active"]
    assert frame["register_days"].to_list() == ["327", "107"]
    assert frame["onehot_feat17"].to_list() == [None, "0"]
    assert Field("tag", width=3, separator=",") in source.roles.fields
    assert source.roles.history == History("video_id", 20)
    assert Dense("duration_ms", "log", 0.0) in source.roles.dense
    known_only_after = {"play_time_ms", "long_view", "is_like", "visible_status", "is_rand"}
    assert not known_only_after & set(frame.columns)
    used = {name.rpartition("/")[2] for part in source.parts for name in part.files}
    assert {"user_features_pure.csv", "video_features_basic_pure.csv"} < used


def test_kuairand_with_random_log_and_another_label(tmp_path):
    source = kuairand.read(str(kuai(tmp_path)), label="is_like", random=True)
    frame = whole(source)
    assert source.roles.label == "is_like"
    assert frame["is_like"].to_list() == ["0", "1", "0"]
    assert frame["is_rand"].to_list() == ["0", "0", "1"]
    assert frame["user_active_degree"].to_list() == ["UNKNOWN", "full_active", None]
    assert Field("is_rand") in source.roles.fields


def test_kuairand_with_further_labels(tmp_path):
    source = kuairand.read(str(kuai(tmp_path)), more_labels=("long_view", "is_like"))
    assert source.roles.labels == ("is_click", "long_view", "is_like")
    assert source.roles.fields[-1] == Field("task", 3, derived="task")
    ((_, _, rows, rejects),) = clean(source.parts[:1], source.roles)
    assert rows.label.tolist() == [1, 1, 0] and rows.task.tolist() == [0, 1, 2] and not rejects
    assert rows.fields["user_id"].to_list() == ["3"] * 3
    refused(("no label 'tab'",), kuairand.read, tmp_path, more_labels=("tab",))


def test_kuairand_variants(tmp_path):
    kuai(tmp_path, "27k", ("_part1", "_part2"))
    source = kuairand.read(str(tmp_path))
    assert whole(source)["video_id"].to_list() == ["1071", "1071", "77", "77"]
    kuai(tmp_path, "1k")
    refused(("both", "1k and 27k", "name"), kuairand.read, tmp_path)
    assert len(whole(kuairand.read(str(tmp_path), name="1K"))) == 2
    (tmp_path / "log_standard_4_22_to_5_08_27k_part2.csv").unlink()
    words = ("no log_standard_4_22_to_5_08_27k_part2.csv", "27k", "Zenodo")
    refused(words, kuairand.read, tmp_path, name="27K")


def test_kuairand_says_what_is_wrong(tmp_path):
    refused(("no user_features", "Zenodo"), kuairand.read, tmp_path)
    refused(("'2K'", "27K"), kuairand.read, tmp_path, name="2K")
    refused(("'play_time_ms'", "is_click"), kuairand.read, tmp_path, label="play_time_ms")
    videos = kuai(tmp_path) / "video_features_basic_pure.csv"
    write(videos, VIDEOS[0].replace("tag", "tags"), VIDEOS[1])
    refused((str(videos), "no column 'tag'"), kuairand.read, tmp_path)
    write(videos, *VIDEOS, "11,123,NORMAL")
    refused((str(videos), "row 3", "Zenodo"), kuairand.read, tmp_path)
    write(videos, VIDEOS[0])
    assert whole(kuairand.read(str(tmp_path)))["author_id"].to_list() == [None, None]
    videos.unlink()
    refused(("no video_features_basic_pure.csv", "Zenodo"), kuairand.read, tmp_path)


def alimama(folder):
    write(
        folder / "raw_sample.csv",
        "user,time_stamp,adgroup_id,pid,nonclk,clk",
        "581738,1494137644,1,430548_1007,1,0",
        "234,1494638778,63133,430539_1007,0,1",
        "234,1494638778,2,430539_1007,1,0",
    )
    write(
        folder / "ad_feature.csv",
        "adgroup_id,cate_id,campaign_id,customer,brand,price",
        "63133,6406,83237,1,95471,170.0",
        "2,6406,83237,1,NULL,0.01",
    )
    write(
        folder / "user_profile.csv",
        "userid,cms_segid,cms_group_id,final_gender_code,age_level,pvalue_level,shopping_level,"
        "occupation,new_user_class_level ",
        "234,0,5,2,5,,3,0,3",
    )


def test_alimama(tmp_path):
    alimama(tmp_path)
    source = taobao.read(str(tmp_path))
    frame = whole(source)
    assert frame["clk"].to_list() == ["0", "1", "0"]
    assert frame["time_stamp"].to_list() == ["1494137644", "1494638778", "1494638778"]
    assert frame["cate_id"].to_list() == [None, "6406", "6406"]
    assert frame["brand"].to_list() == [None, "95471", None]
    assert frame["price"].to_list() == [None, "170.0", "0.01"]
    assert frame["new_user_class_level"].to_list() == [None, "3", "3"]
    assert frame["pvalue_level"].to_list() == [None] * 3
    assert source.roles.user == "user"
    assert source.roles.dense == (Dense("price", "log", 0.0),)
    assert "nonclk" not in frame.columns


def tmall(folder):
    write(
        folder / "user_log_format1.csv",
        "user_id,item_id,cat_id,seller_id,brand_id,time_stamp,action_type",
        "328862,323294,833,2882,2661,829,0",
        "328862,844400,1271,2882,,1111,2",
        "1,844400,1271,2882,2661,0511,3",
    )
    write(
        folder / "user_info_format1.csv",
        "user_id,age_range,gender",
        "328862,6,1",
        "1,0,2",
        "2,,",
    )


def test_tmall_purchases_are_positive(tmp_path):
    tmall(tmp_path / "data_format1")
    source = taobao.read(str(tmp_path), name="tmall")
    frame = whole(source)
    assert frame["purchase"].to_list() == [False, True, False]
    days = [dt.date(2014, 8, 29), dt.date(2014, 11, 11), dt.date(2014, 5, 11)]
    assert frame["time"].to_list() == days
    assert frame["brand_id"].to_list() == ["2661", None, "2661"]
    assert frame["age_range"].to_list() == ["6", "6", None]
    assert frame["gender"].to_list() == ["1", "1", None]
    assert [f.name for f in source.roles.fields if f.derived] == ["weekday"]
    assert "action_type" not in frame.columns
    with open(tmp_path / "data_format1" / "user_log_format1.csv", "a") as log:
        log.write("2,8,1,2,2,0230,1\n2,8,1,2,2,0511,7\n")
    assert rejected(taobao.read(str(tmp_path))) == [
        (4, "time_stamp", "0230", "is no day"),
        (5, "action_type", "7", "is no action"),
    ]


def test_taobao_says_what_is_wrong(tmp_path):
    refused(("none of raw_sample.csv and user_log_format1.csv", "Tianchi"), taobao.read, tmp_path)
    refused(("'taobao'", "tmall"), taobao.read, tmp_path, name="taobao")
    alimama(tmp_path)
    refused(("user_log_format1.csv", "IJCAI-15"), taobao.read, tmp_path, name="tmall")
    (tmp_path / "ad_feature.csv").unlink()
    refused(("no ad_feature.csv", "alimama", "Tianchi"), taobao.read, tmp_path)
    tmall(tmp_path)
    refused(("both", "name alimama or tmall"), taobao.read, tmp_path)
    log = write(tmp_path / "user_log_format1.csv", "user_id,item_id", "1,2")
    refused((str(log), "no column 'cat_id'"), taobao.read, tmp_path, name="tmall")
