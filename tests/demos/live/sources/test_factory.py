"""What --source accepts; an error is one line, says what to type, and shows no password."""

from __future__ import annotations

import os
import string
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demos.live.sources.capture import csi_pipeline
from demos.live.sources.factory import open_source, redacted
from demos.live.sources.opencv import opencv
from simplenet.errors import BackendUnavailable, SimpleNetError, SourceError, UsageError
from tests.demos.conftest import WriteVideo, shades
from tests.demos.live.sources.network_camera import Request, send_file, serving
from tests.demos.live.sources.scripted_camera import next_frame


def test_rejects_files_that_are_not_videos_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "empty.avi").touch()
    (tmp_path / "text.avi").write_text("a video, honestly\n" * 99)
    (tmp_path / "header.avi").write_bytes(b"RIFF\xff\xff\xff\xffAVI LIST")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe.avi")
    os.mkfifo(tmp_path / "pipe.png")
    for name, complaint in {
        "missing.avi": "no such video",
        "empty.avi": "is empty",
        "text.avi": "is not a video",
        "header.avi": "is not a video",
        "pipe.avi": "is not a regular file",
        "pipe.png": "is not a regular file",
        "folder": "no images in",
        "x" * 5000: "cannot read",
        "nul\0.avi": "no such video|cannot read",
    }.items():
        with pytest.raises(SourceError, match=complaint) as caught:
            open_source(str(tmp_path / name))
        assert "\n" not in str(caught.value)
        assert "--source synthetic" in str(caught.value)


def test_file_name_is_not_a_pattern_of_numbered_images(tmp_path: Path) -> None:
    cv2 = opencv()
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"frame{number:03}.png"), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(SourceError, match="no such video"):
        open_source(str(tmp_path / "frame%03d.png"))


def test_ffmpeg_whitelist_blocks_playlists(
    write_video: WriteVideo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_video("clip.avi", shades(3))
    requested: list[str] = []

    def respond(request: Request, _: int) -> None:
        requested.append(request.path)
        playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://{host}/clip.ts\n#EXT-X-ENDLIST\n"
        send_file(request, playlist.encode())

    monkeypatch.chdir(tmp_path)
    with serving(respond) as host:
        for name, content in {
            "list.ffconcat": "ffconcat version 1.0\nfile 'clip.avi'\n",
            "list.avi": "ffconcat version 1.0\nfile 'clip.avi'\n",
            "list.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://{host}/clip.ts\n#EXT-X-ENDLIST\n",
            "list.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
            "concat:clip.avi|clip.avi": "a file whose name starts like an FFmpeg protocol",
            "subfile,,start,0,end,0,,:clip.avi": "the same",
            "file:clip.avi": "the same",
        }.items():
            Path(name).write_text(content)
            with pytest.raises(SourceError, match=r"is not a video|is a playlist"):
                open_source(name)
        assert requested == []
        with pytest.raises(SourceError, match="gives a playlist, not a stream"):
            open_source(f"http://{host}/list.m3u8")
        assert set(requested) == {"/list.m3u8"}
        # The target exists and is readable: with its absolute path, FFmpeg reads a file of such a name.
        clip.rename("concat:video")
        with open_source("concat:video") as source:
            assert next_frame(source) is not None


def test_missing_camera_is_named() -> None:
    plain = Path("/dev/shm/simplenet-test-camera")
    plain.write_bytes(b"not a camera")
    try:
        for text, complaint in (
            ("98", r"no camera 98: /dev/video98 does not exist; plug it in"),
            ("/dev/video98", r"no camera /dev/video98: /dev/video98 does not exist"),
            ("/dev/null", "camera /dev/null cannot be opened"),
            ("/dev/zero", "camera /dev/zero cannot be opened"),
            (str(plain), "is not a device"),
            ("/dev/shm", "is not a device"),
        ):
            with pytest.raises(SourceError, match=complaint):
                open_source(text)
    finally:
        plain.unlink()


def test_retries_a_missing_camera_in_background() -> None:
    with open_source("98", connect_in_background=True, reconnect_timeout_s=0.05) as source:
        assert (source.name, source.kind, source.is_live) == ("camera 98", "camera", True)
        with pytest.raises(SourceError, match=r"camera 98 gave no frame for 0\.05 s: no camera 98"):
            next_frame(source, 10)


def test_reports_missing_gstreamer_without_password() -> None:
    if opencv().videoio_registry.hasBackend(opencv().CAP_GSTREAMER):
        pytest.skip("this OpenCV has GStreamer")
    for text in ("csi:0", "csi:1:1280x720@60", "gst:rtspsrc location=rtsp://cook:p4ss@camera ! decodebin"):
        with pytest.raises(BackendUnavailable, match="needs an OpenCV with GStreamer") as caught:
            open_source(text)
        assert "p4ss" not in str(caught.value)
        with (
            open_source(text, connect_in_background=True) as source,
            pytest.raises(SourceError, match="GStreamer") as failed,
        ):
            next_frame(source, 10)
        assert "p4ss" not in f"{failed.value}{source.name}"


def test_csi_pipeline_drops_stale_frames() -> None:
    pipeline = csi_pipeline(1, 1920, 1080, 60)
    assert pipeline.startswith("nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),width=1920,height=1080,")
    assert "framerate=60/1" in pipeline
    assert "appsink drop=true max-buffers=1" in pipeline


@pytest.mark.parametrize(
    "text",
    [
        "synthetic:", "synthetic:640", "synthetic:0x480", "synthetic:99999x480", "synthetic@0", "synthetic@999",
        "synthetic:640x480@", "synthetic:\n", "gst:", "gst: ", "csi:",
        "csi:x", "csi:0:640", "csi:999", "ftp://host/", "rtsp:host",
    ],
)  # fmt: skip
def test_mistyped_source_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_source(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://cook:p4ss@127.0.0.1:9/x", "http://cook:p4ss@127.0.0.1:9/x", "http://127.0.0.1:9/x?password=p4ss",
        "ftp://cook:p4ss@host/", "rtsp:cook:p4ss@host", "rtsp//cook:p4ss@host/x", "cook:p4ss@host",
        "camera.local/video?user=cook&password=p4ss", "rtsp:/cook:p4ss@host", "https:cook:p4ss@host", "RTSP:p4ss",
        "rtsp://127.0.0.1:9/user=cook_password=p4ss_channel=1.sdp", "rtsp//camera/user=cook&password=p4ss&channel=1",
    ],
)  # fmt: skip
def test_message_shows_no_password(text: str) -> None:
    with pytest.raises(SimpleNetError) as caught:
        open_source(text)
    error: BaseException | None = caught.value
    while error is not None:
        assert "p4ss" not in str(error)
        error = error.__cause__


words = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)


@given(user=words, password=words, query=words)
def test_redacts_user_password_and_query(user: str, password: str, query: str) -> None:
    shown = redacted(f"rtsp://{user}:{password}@camera.local/stream?{query}")
    assert shown == "rtsp://***@camera.local/stream?…" or ("@" in query and shown.startswith("rtsp://***@"))


secret = st.text(alphabet=string.ascii_uppercase, min_size=6, max_size=12)


@given(
    scheme=st.sampled_from(["ftp://", "rtsp:", "http:/", "rtsp//", "", "x://", "HTTP:", "rtsps:///:"]),
    user=st.text(alphabet=string.ascii_lowercase + ":@/?#%;\\ \n", max_size=8),
    password=secret,
    rest=st.text(alphabet=string.ascii_lowercase + ":@/?#%;= \n", max_size=12),
)
def test_malformed_address_shows_no_password(scheme: str, user: str, password: str, rest: str) -> None:
    with pytest.raises(SimpleNetError) as caught:
        open_source(f"{scheme}{user}:{password}@{rest}", reconnect_timeout_s=0.01)
    assert password not in str(caught.value)


@settings(max_examples=300)
@given(
    start=st.sampled_from(
        ["", "/dev/", "/dev/video", "synthetic", "synthetic:", "csi:", "gst:", "http://127.0.0.1:9/", "./"]
    ),
    text=st.text(alphabet=st.characters(exclude_categories=()), max_size=12),
)
def test_any_text_opens_a_source_or_raises_one_line(start: str, text: str) -> None:
    said = ""
    try:
        open_source(start + text).close()
    except SimpleNetError as error:
        said = str(error)
    assert "\n" not in said
    said.encode()  # can be printed


def test_opens_a_name_that_is_not_utf8(write_video: WriteVideo) -> None:
    clip = write_video("clip.avi", shades(2))
    odd = os.fsdecode(os.fsencode(clip.parent) + b"/clip\xff.avi")
    clip.rename(odd)
    with open_source(odd) as source:
        assert next_frame(source) is not None
    with pytest.raises(SourceError, match="not UTF-8"):
        open_source("http://127.0.0.1:9/\udcff")
