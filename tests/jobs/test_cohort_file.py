from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuclens.core.errors import InputError
from nuclens.jobs import cohort_file
from nuclens.jobs.cohort_file import Entry, read_cohort


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "cohort.csv"


def read(file: Path, text: str | bytes) -> list[Entry]:
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_cohort(file)


def faults(file: Path, text: str | bytes) -> list[str]:
    with pytest.raises(InputError) as caught:
        read(file, text)
    head, *lines = str(caught.value).splitlines()
    assert head.startswith(f"{file}: ")
    return [line.strip() for line in lines]


def test_a_row_says_everything(file: Path) -> None:
    text = 'path,name,mpp,patient,group,tissue,region,stage\na.svs,first,0.5,p1,high,masks/a.png,"0,0,5,5um",T2\n'
    [entry] = read(file, text)
    assert entry == Entry(
        path=file.parent / "a.svs",
        name="first",
        mpp=0.5,
        tissue=str(file.parent / "masks" / "a.png"),
        region="0,0,5,5um",
        facts={"patient": "p1", "group": "high", "stage": "T2"},
        cohort=str(file.resolve()),
    )


def test_a_path_is_enough(file: Path) -> None:
    [entry] = read(file, "path\nsub/a slide with µ.ome.tif\n")
    assert entry == Entry(
        file.parent / "sub" / "a slide with µ.ome.tif", "a slide with µ.ome", cohort=str(file.resolve())
    )


def test_an_absolute_path_and_a_url_stay_as_they_are(file: Path) -> None:
    first, second = read(file, "path,tissue\n/scans/a.svs,none\ns3://bucket/deep/b.svs,https://x/mask.png\n")
    assert (first.path, first.tissue) == (Path("/scans/a.svs"), "none")
    assert (second.path, second.name, second.tissue) == ("s3://bucket/deep/b.svs", "b", "https://x/mask.png")


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffPath;MPP;Group\r\na.svs;0,25;x\r\n",
        "path\tmpp\tgroup\na.svs\t0.25\tx\n",
        "sep=;\r\npath;mpp;group\r\na.svs;0.25;x\r\n",
        '"path","mpp","group"\n"a.svs","0.25","x"\n\n,,\n   \n',
        " path , mpp , group \n a.svs , 0.25 , x \n",
        "path,mpp,group\ra.svs,0.25,x\r",
        '"path";"mpp";"group"\n"a.svs";"0,25";"x"',
        '"Path";"MPP";"group"\n"a.svs";"0,25";"x"',
        "path;mpp;group;;\na.svs;0,25;x;;\n",
        "path,mpp,,group\na.svs,0.25,,x,,,\n",
    ],
    ids=["excel", "tabs", "sep", "quoted", "blanks", "mac", "all-quoted", "capital", "spare", "spare inside"],
)
def test_as_spreadsheets_write_it(file: Path, text: str) -> None:
    [entry] = read(file, text)
    assert (entry.path, entry.mpp, dict(entry.facts)) == (file.parent / "a.svs", 0.25, {"group": "x"})


def test_quoted_fields_hold_anything(file: Path) -> None:
    [first, second] = read(file, 'path,note\n"a,b.svs","two\nlines and ""quotes"""\nc.svs,\n')
    assert first.path == file.parent / "a,b.svs"
    assert first.facts == {"note": 'two\nlines and "quotes"'}
    assert second.facts == {"note": ""}


def test_a_quoted_heading_may_hold_what_parts_the_columns(file: Path) -> None:
    [entry] = read(file, '"Path";"Patient, id"\na.svs;17\n')
    assert entry.facts == {"Patient, id": "17"}


def test_a_long_name_of_a_file_is_cut(file: Path) -> None:
    [entry] = read(file, f"path\n{'é' * 120}x.svs\n")
    assert entry.name == "é" * 100


def test_two_slides_of_one_stem_have_names(file: Path) -> None:
    assert [entry.name for entry in read(file, "path,name\nx/a.svs,xa\ny/a.svs,\n")] == ["xa", "a"]


def test_a_short_row_lacks_only_what_is_last(file: Path) -> None:
    assert read(file, "path,group,mpp\na.svs,x\n")[0].facts == {"group": "x"}


def test_all_faults_at_once(file: Path) -> None:
    text = (
        "path,name,mpp,region\n"
        "a.svs,,fine,\n"
        ",,,\n"
        ",b,0.25,\n"
        "\n"
        "c.svs,../c,40,\n"
        "d.svs,,0.25,everywhere\n"
        "e.svs,,0.25,,more\n"
        "f.svs,,,\n"
        "f.svs,other,,\n"
        "x/f.svs,,,\n"
    )
    got = faults(file, text)
    assert [line.partition(": ")[0] for line in got] == [
        *("line 2, mpp", "line 4, path", "line 6, mpp", "line 6, name", "line 7, region", "line 8"),
        *("line 10, path", "line 11, name"),
    ]
    assert got[0] == "line 2, mpp: got 'fine', wanted micrometres per pixel, 0.05 to 4: 0.25 for 40x, 0.5 for 20x"
    assert got[5] == "line 8: got 5 fields, wanted 4; quote a field that holds ','"
    assert got[6].endswith("f.svs, which line 9 has too; wanted each slide once")
    assert "the name of" in got[7]
    assert got[7].endswith("in line 9 too; wanted another in a column name")


def test_lines_are_counted_over_quoted_breaks(file: Path) -> None:
    assert faults(file, 'path,note,mpp\na.svs,"x\ny\nz",\nb.svs,,x\n')[0].startswith("line 5, mpp: ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1: got the columns none, wanted one called path"),
        ("slide,mpp\na.svs,1\n", "line 1: got the columns slide, mpp, wanted one called path"),
        ("paths,mpp\na.svs,1\n", "wanted one called path; is it 'paths'?"),
        ("path,mpp,MPP\na.svs,1,1\n", "line 1, mpp: got 2 columns 'mpp', wanted each name once"),
        ("path,,\na.svs,1,2\n", "line 1: got columns without a name, wanted each name once"),
        ("path\n\n", "line 1: got no slide; wanted one in each line below the heading"),
        ('path\n"a.svs\n', "line 2: no CSV from here on"),
        (b"path\na.svs\nM\xfcller.svs\n", "line 3: got the byte 0xfc, wanted UTF-8; in a spreadsheet save as"),
        ("path\na.svs\n".encode("utf-16"), "line 1: got UTF-16, wanted UTF-8"),
        ("path,mpp\na.svs,nan\n", "line 2, mpp: got 'nan'"),
        ("path,mpp\na.svs,inf\n", "line 2, mpp: got 'inf'"),
        ("path,mpp\na.svs,\"0,25\"\n", "line 2, mpp: got '0,25'"),
        ("path,name\na.svs,.hidden\n", "line 2, name: got .hidden, wanted a folder's name"),
        ("path,name\na.svs,a\\b\n", "line 2, name: "),
        (f"path,name\na.svs,{'x' * 300}\n", "line 2, name: "),
        (f"path,name\na.svs,{'é' * 101}\n", "line 2, name: "),
        ("path,name\na.svs,Summary.csv\n", "line 2, name: got Summary.csv, which the run writes itself"),
        ("path\nscans/nuclens.log.svs\n", "line 2, name: got nuclens.log, which the run writes itself"),
        ("path\na\0.svs\n", "line 2, path: got a NUL character"),
        ("path,tissue\na.svs,a\0.png\n", "line 2, tissue: got a NUL character"),
        ("path,name\na.svs,a\0\n", "line 2, name: got a NUL character"),
        ("path,mpp\na.svs,x\n\"b.svs\n", "line 2, mpp: got 'x'"),
        ("path,note\na.svs," + "x" * 200_000 + "\n", "line 2: no CSV from here on (field larger than field limit"),
    ],
)  # fmt: skip
def test_what_is_refused(file: Path, text: str | bytes, said: str) -> None:
    assert any(said in line for line in faults(file, text)), faults(file, text)


def test_of_very_many_faults_some_are_told(file: Path) -> None:
    got = faults(file, "path,mpp\n" + "".join(f"{k}.svs,x\n" for k in range(1000)))
    assert len(got) == 51
    assert got[-1] == "and 950 more"


def test_what_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="No such file or directory; wanted a CSV with a column called path"):
        read_cohort(tmp_path / "absent.csv")
    (tmp_path / "large.csv").write_text("path\na.svs\n")
    monkeypatch.setattr(cohort_file, "MAX_BYTES", 5)
    with pytest.raises(InputError, match="11 bytes; of a table of slides at most 5 are read"):
        read_cohort(tmp_path / "large.csv")


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.mktemp("any") / "cohort.csv"
    file.write_bytes(b"path,mpp,name\n" + content)
    try:
        entries = read_cohort(file)
    except InputError as error:
        assert str(error).startswith(str(file))  # noqa: PT017 - either is right
    else:
        assert len({entry.name for entry in entries}) == len(entries) > 0
        assert not any("/" in entry.name or entry.name.startswith(".") for entry in entries)
