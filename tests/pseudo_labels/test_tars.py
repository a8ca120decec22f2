"""Members of tars; what of listing ``sources`` shares with it is tested there."""

import tarfile
from pathlib import Path

import pytest

from pseudo_labels import tars
from pseudo_labels.folders import PassedOver
from pseudo_labels.records import ImageError, Status
from tests.helpers.containers import IMAGES, write_tar


def test_members_are_read_where_they_lie(tmp_path: Path):
    write_tar(tmp_path / "x.tar", [("a.png", IMAGES[0]), ("a.txt", b"words"), ("dir/é.png", IMAGES[1])])
    passed = PassedOver()
    with open(tmp_path / "x.tar", "rb") as file:
        listed = list(tars.list_tar(str(tmp_path / "x.tar"), file, passed))
    assert [tars.read_member(image.address) for image in listed] == IMAGES[:2]
    assert passed.others == {".txt": 1}
    with tarfile.open(tmp_path / "x.tar") as archive:
        offsets = [member.offset_data for member in archive.getmembers()]
    assert [tars.place_of(image.address)[1] for image in listed] == [offsets[0], offsets[2]]


@pytest.mark.parametrize(
    ("address", "status", "reason"),
    [
        ("tar://a.png", Status.MISSING, "offset and size are needed"),
        ("tar://a.png?offset=0&size=x::/x.tar", Status.MISSING, "offset and size are needed"),
        ("tar://a.png?offset=-5&size=2::/x.tar", Status.MISSING, "ARCHIVE are needed"),
        ("tar://a.png?offset=0&size=2", Status.MISSING, "ARCHIVE are needed"),
        ("tar://a.png?offset=0&size=2::/none/x.tar", Status.MISSING, "no such file"),
        ("tar://a.png?offset=0&size=2::s3://bucket/x.tar", Status.MISSING, "no local file"),
        ("tar://a.png?offset=0&size=999999999999::/x.tar", Status.TOO_LARGE, "above the limit"),
    ],
)
def test_a_wrong_address_is_a_status(address: str, status: Status, reason: str):
    with pytest.raises(ImageError, match=reason) as caught:
        tars.read_member(address)
    assert caught.value.status == status


def test_a_member_that_is_cut_is_no_image(tmp_path: Path):
    write_tar(tmp_path / "x.tar", [("a.png", IMAGES[0])])
    with pytest.raises(ImageError, match="ends before this member does"):
        tars.read_member(tars.of_member(str(tmp_path / "x.tar"), "a.png", 512, 1 << 20))
