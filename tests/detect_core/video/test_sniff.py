import pytest

from detect_core.errors import EmptyInputError, FormatNotAllowedError, NotMediaError
from detect_core.video.sniff import sniff


@pytest.mark.parametrize(
    ("head", "demuxer"),
    [
        (b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomavc1", "mov"),
        (b"\x00\x00\x00\x08wide\x00\x00\x00\x08mdat", "mov"),
        (b"\x1a\x45\xdf\xa3" + bytes(40), "matroska"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", "avi"),
        (b"RIFFfreeAVI LIST", "avi"),
        (b"\x1a\x45\xdf\xa3moov" + bytes(40), "matroska"),
        (b"\x00\x00\x01\xbafree" + bytes(40), "mov"),
        (b"RIFFmdat" + bytes(40), "mov"),
        (b"FLV\x01\x05", "flv"),
        (b"GIF89a" + bytes(20), "gif"),
        (b"\x00\x00\x01\xba" + bytes(20), "mpeg"),
        ((b"\x47" + bytes(187)) * 6, "mpegts"),
        (bytes(4) + (b"\x47" + bytes(191)) * 6, "mpegts"),
    ],
)
def test_names_the_demuxer_of_known_containers(head: bytes, demuxer: str) -> None:
    assert sniff(head) == demuxer


@pytest.mark.parametrize(
    "head",
    [
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        b"ffconcat version 1.0\nfile '/etc/passwd'\n",
        b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\n",
        b"<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011'></MPD>",
        b"WEBVTT\n\n00:00.000 --> 00:01.000\nhello\n",
        b"1\n00:00:00,000 --> 00:00:01,000\nhello\n",
        b"\xff\xd8\xff\xe0" + bytes(30),
        b"8BPS" + bytes(30),
        b"ID3\x03" + bytes(30),
        b"\xff\xfb\x90\x64" + bytes(30),
        b"RIFF\x00\x00\x00\x00WAVEfmt ",
        b"\x00\x10\x00\x00\x12\xaf" + bytes(30),
    ],
)
def test_refuses_playlists_scripts_pictures_and_audio_by_name(head: bytes) -> None:
    with pytest.raises(FormatNotAllowedError):
        sniff(head)


@pytest.mark.parametrize("head", [b"just text", b"PK\x03\x04" + bytes(30), b"<svg xmlns='http://www.w3.org/2000/svg'/>", bytes(100)])
def test_refuses_what_is_no_media(head: bytes) -> None:
    with pytest.raises(NotMediaError):
        sniff(head)


def test_refuses_a_photo_in_an_mp4_like_container() -> None:
    with pytest.raises(NotMediaError):
        sniff(b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(40))


def test_names_an_empty_file() -> None:
    with pytest.raises(EmptyInputError):
        sniff(b"")
