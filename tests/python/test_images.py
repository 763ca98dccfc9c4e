"""Images that are fetched, listed and removed."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import os
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import blink
import pytest
from blink.aio import AsyncBlink
from conftest import ENGINE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from blink import Blink, Progress


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def layer() -> bytes:
    """A tar with a file that no other image has."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        member = tarfile.TarInfo("etc/made")
        member.size = 1 << 20
        tar.addfile(member, io.BytesIO(os.urandom(member.size)))
    return packed.getvalue()


@pytest.fixture
def reference() -> Iterator[str]:
    """An image in a registry on loopback, which has no other."""
    plain = layer()
    packed = gzip.compress(plain, 1)
    rootfs = {"type": "layers", "diff_ids": [digest_of(plain)]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}).encode()
    kind = "application/vnd.oci.image"
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": f"{kind}.manifest.v1+json",
            "config": {"mediaType": f"{kind}.config.v1+json", "digest": digest_of(config), "size": len(config)},
            "layers": [{"mediaType": f"{kind}.layer.v1.tar+gzip", "digest": digest_of(packed), "size": len(packed)}],
        }
    ).encode()
    served = {
        "/v2/": b"{}",
        "/v2/made/manifests/1": manifest,
        f"/v2/made/manifests/{digest_of(manifest)}": manifest,
        f"/v2/made/blobs/{digest_of(config)}": config,
        f"/v2/made/blobs/{digest_of(packed)}": packed,
    }

    class Registry(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = served.get(self.path)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Type", f"{kind}.manifest.v1+json")
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Registry) as registry:
        thread = threading.Thread(target=registry.serve_forever)
        thread.start()
        yield f"127.0.0.1:{registry.server_port}/made:1"
        registry.shutdown()
        thread.join()


def test_images_are_fetched_listed_and_removed(library: Blink, reference: str) -> None:
    told: list[Progress] = []
    image = library.pull(reference, progress=told.append)
    assert image.reference == reference
    assert image.digest.startswith("sha256:")
    assert image.size_bytes > 1 << 20
    assert told
    assert (told[-1].step, told[-1].layers) == ("download", 1)
    assert told[-1].bytes_done == told[-1].bytes_total > 1 << 20
    assert image in library.images()
    with pytest.raises(blink.NotFound):
        library.remove_image("sha256:" + "0" * 64)
    assert library.remove_image(reference).digests == [image.digest]
    assert library.prune_images().freed_bytes >= 0


def test_an_image_that_is_too_large_is_refused(reference: str, home: Path) -> None:
    with blink.Blink(home=home, isolation=ENGINE, image_limit_bytes=1000) as library:  # type: ignore[arg-type]
        with pytest.raises(blink.ResourceExhausted, match="image_limit_bytes"):
            library.fetch_image(image=reference)

    async def main() -> None:
        async with AsyncBlink(home=home, isolation=ENGINE, image_limit_bytes=1000) as library:  # type: ignore[arg-type]
            with pytest.raises(blink.ResourceExhausted):
                await library.fetch_image(image=reference)

    asyncio.run(main())
    with pytest.raises(blink.InvalidArgument):
        blink.Blink(home=home, isolation=ENGINE, image_limit_bytes=0)  # type: ignore[arg-type]


def test_an_image_is_fetched_before_it_is_needed(library: Blink, reference: str, home: Path) -> None:
    told: list[Progress] = []
    library.fetch_image(image=reference, progress=told.append)
    assert told[-1].bytes_done > 1 << 20
    told.clear()
    # What is stored is good enough, also where nothing more can be had.
    library.fetch_image(image=reference, progress=told.append)
    assert told == []
    library.fetch_image()
    with blink.Blink(home=home, isolation=ENGINE, offline=True) as offline:  # type: ignore[arg-type]
        offline.fetch_image(image=reference)
        with pytest.raises(blink.ImageUnavailable, match=r"alpine:3\.20"):
            offline.fetch_image(image="alpine:3.20")

    async def main() -> None:
        async with AsyncBlink(home=home, isolation=ENGINE) as library:  # type: ignore[arg-type]
            await library.fetch_image(image=reference)
            with pytest.raises(blink.InvalidArgument):
                await library.fetch_image(image=reference, cpus=-1)
            with pytest.raises(TypeError, match="fetch_image"):
                await library.fetch_image(imagine=reference)  # type: ignore[call-arg]

    asyncio.run(main())
    library.remove_image(reference)
    library.prune_images()


@pytest.fixture
def closed_registry() -> Iterator[tuple[str, list[str]]]:
    """A registry on loopback with no images, for whoever logs in; and what it was told."""
    told: list[str] = []

    class Registry(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            login = self.headers.get("Authorization")
            if login is None:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="tests"')
            else:
                told.append(login)
                self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Registry) as registry:
        thread = threading.Thread(target=registry.serve_forever)
        thread.start()
        yield f"127.0.0.1:{registry.server_port}", told
        registry.shutdown()
        thread.join()


def test_logins(home: Path, closed_registry: tuple[str, list[str]], tmp_path: Path) -> None:
    name, told = closed_registry
    none, config = tmp_path / "none.json", tmp_path / "docker.json"
    login = "cm9ib3Q6c2VjcmV0"  # robot:secret
    config.write_text(json.dumps({"auths": {name: {"auth": login}}}))
    with blink.Blink(home=home, docker_config=none) as library:
        with pytest.raises(blink.ImageUnavailable, match="docker login"):
            library.pull(f"{name}/made:1")
    assert told == []
    with blink.Blink(home=home, docker_config=config) as library:
        with pytest.raises(blink.NotFound):
            library.pull(f"{name}/made:1")
    assert set(told) == {f"Basic {login}"}
    told.clear()
    with blink.Blink(home=home, docker_config=none, credentials={name: ("robot", "secret")}) as library:
        with pytest.raises(blink.NotFound):
            library.pull(f"{name}/made:1")
    assert set(told) == {f"Basic {login}"}
    with pytest.raises(TypeError):
        blink.Blink(home=home, docker_config=5)  # type: ignore[arg-type]


def test_what_the_function_for_progress_raises_is_raised(library: Blink, reference: str) -> None:
    def refuse(_: Progress) -> None:
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        library.pull(reference, progress=refuse)

    async def main() -> None:
        async with AsyncBlink(isolation=ENGINE) as library:  # type: ignore[arg-type]
            with pytest.raises(LookupError, match="enough"):
                await library.pull(reference, progress=refuse)
            told: list[Progress] = []
            image = await library.pull(reference, progress=told.append)
            assert told
            await library.remove_image(image.digest)

    asyncio.run(main())


def test_a_session_becomes_an_image(library: Blink, reference: str, tmp_path: Path) -> None:
    told: list[blink.TransferProgress] = []
    with library.session("painted", image=reference) as session:
        session.files.write("/added", "new")
        session.export_oci(tmp_path / "image.tar", progress=told.append)
        session.export_oci(tmp_path / "image")
        with pytest.raises(blink.InvalidArgument):
            session.export_oci(tmp_path / "image")
        session.remove()
    assert told
    for image in ("image.tar", "image"):
        with library.sandbox(image=tmp_path / image) as sandbox:
            assert sandbox.files.read_text("/added") == "new"
    library.remove_image(reference)
    library.prune_images()


def test_what_is_no_image(library: Blink, tmp_path: Path) -> None:
    with pytest.raises(blink.InvalidArgument, match="host"):
        library.pull("host")
    (tmp_path / "image.tar").write_bytes(b"no image")
    with pytest.raises((blink.Corrupt, blink.Unsupported, blink.InvalidArgument)):
        library.pull(tmp_path / "image.tar")
