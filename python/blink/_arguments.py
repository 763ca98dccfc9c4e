"""What the library is described with, made of what its users say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _blink
from ._values import TransferProgress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ._options import SessionOptions, Text
    from ._values import IsolationChoice, Progress


def listening(options: SessionOptions, import_progress: Callable[[TransferProgress], object] | None) -> None:
    """Have one function told of both, an image and an archive; a call has no more."""
    if import_progress is None:
        return
    progress = options.get("progress")

    def tell(news: Progress | TransferProgress) -> None:
        if isinstance(news, TransferProgress):
            import_progress(news)
        elif progress is not None:
            progress(news)

    options["progress"] = tell


def native(
    home: Text | None,
    isolation: IsolationChoice | None,
    offline: bool,
    mirrors: Mapping[str, str | list[str]] | None,
    insecure_registries: Iterable[str],
    registry_ca: Text | None,
    credentials: Mapping[str, tuple[str, str]] | None,
    docker_config: Text | None,
    image_limit_bytes: int | None,
    budget: tuple[int | None, int | None] | None,
) -> _blink.Blink:
    """Describe the library of a home."""
    pairs = [
        (registry, address)
        for registry, addresses in (mirrors or {}).items()
        for address in ([addresses] if isinstance(addresses, str) else addresses)
    ]
    logins = [(registry, user, password) for registry, (user, password) in (credentials or {}).items()]
    return _blink.Blink(
        home,
        isolation,
        offline,
        pairs,
        list(insecure_registries),
        registry_ca,
        logins,
        docker_config,
        image_limit_bytes,
        *(budget or (None, None)),
    )
