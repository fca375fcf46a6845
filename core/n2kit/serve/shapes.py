"""The shapes in which clients ask for embeddings: OpenAI's, Jina's, vLLM's, Infinity's, and n2kit's own items."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from n2kit.serve.problems import Problem

Encoding = Literal["float", "base64", "binary", "ubinary"]
Row = dict[str, Any]  # fields of an item, as a client gave them
NO_PROMPTS = "n2kit has the model's own prompt: leave it out"


class EmbeddingRequest(BaseModel):
    """A request for embeddings; exactly one of `input`, `messages` and `items` holds what is to be embedded."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"input": ["oak chair", "brass lamp"]},
                {"input": [{"text": "oak chair"}, {"image": "data:image/png;base64,…"}], "embedding_type": "base64"},
                {"messages": [{"role": "user", "content": [
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,…"}}, {"type": "text", "text": "oak chair"},
                ]}]},
                {"input": ["data:image/png;base64,…"], "modality": "image"},
                {"items": [{"title": "oak chair", "topics": ["furniture"], "image": "data:image/png;base64,…"}]},
            ]
        },
    )  # fmt: skip

    model: str | None = Field(None, description="A name of /v1/models; may be left out where one model is served.")
    input: Any = Field(None, description="A text or item, or a list of them: OpenAI, Jina, Infinity.")
    messages: list[dict[str, Any]] | None = Field(None, description="One item as a user's message: vLLM.")
    items: list[dict[str, Any]] | None = Field(None, description="Items: title, topics, content, category, image.")
    modality: Literal["text", "image"] | None = Field(None, description="What the texts of `input` are: Infinity.")
    encoding_format: Encoding | None = None
    embedding_type: Encoding | None = Field(None, description="Jina's name of encoding_format.")
    dimensions: int | None = Field(None, ge=1, description="A width that the model was trained for (Matryoshka).")
    normalized: Literal[True] | None = Field(None, description="Vectors are of unit length, always.")
    truncate: bool | None = Field(None, description="Long texts are cut to the model's prompt, always.")
    user: str | None = None

    @property
    def encoding(self) -> Encoding:
        return self.encoding_format or self.embedding_type or "float"


def rows_of(asked: EmbeddingRequest) -> list[Row]:
    """List what a request wants embedded, one row a vector.

    Raises:
        Problem: nothing, or not in one of the shapes.
    """
    given = [name for name in ("input", "messages", "items") if getattr(asked, name) is not None]
    if len(given) != 1:
        raise Problem(400, f"give one of input, messages and items, not {' and '.join(given) or 'none'}")
    if asked.encoding_format and asked.embedding_type and asked.encoding_format != asked.embedding_type:
        raise Problem(
            400, f"encoding_format {asked.encoding_format} and embedding_type {asked.embedding_type}", "give one"
        )
    if asked.messages is not None:
        return [_of_messages(asked.messages)]
    rows = (
        [dict(row) for row in asked.items] if asked.items is not None else list(_of_input(asked.input, asked.modality))
    )
    if not rows:
        raise Problem(400, f"{given[0]} is empty", param=given[0])
    return rows


def _of_input(value: Any, modality: str | None) -> Iterator[Row]:
    for number, one in enumerate(value if isinstance(value, list) else [value]):
        where = f"input.{number}" if isinstance(value, list) else "input"
        if isinstance(one, str) and modality is None and one[:11].lower() == "data:image/":
            raise Problem(
                400, f"{where}: a picture in place of a text", 'send {"image": "data:…"}, or "modality": "image"', where
            )
        if isinstance(one, str):
            yield {"image" if modality == "image" else "title": _not_empty(one, where)}
        elif isinstance(one, dict):
            yield _of_jina(one, where)
        elif isinstance(one, int | list):
            raise Problem(
                400, f"{where}: token ids, which are of another tokenizer than this model's", "send texts", where
            )
        else:
            raise Problem(400, f"{where} is neither a text nor an object", param=where)


def _of_jina(one: Row, where: str) -> Row:
    """Name the fields of {"text": …} and {"image": …}, which may stand together; n2kit's own names stay."""
    row = dict(one)
    if "text" in row:
        if "title" in row:
            raise Problem(400, f"{where}: text and title", "text is the title: give one", where)
        row["title"] = row.pop("text")
    return row


def _of_messages(messages: list[Row]) -> Row:
    """Join a user's message to one item: its texts, and its image.

    Raises:
        Problem: another role says something; several images; a part of another type.
    """
    texts: list[str] = []
    row: Row = {}
    for number, message in enumerate(messages):
        content = message.get("content")
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
        if message.get("role") != "user" and any(part.get("text") or part.get("type") != "text" for part in parts):
            raise Problem(400, f"messages.{number}: role {message.get('role')!r}", NO_PROMPTS, f"messages.{number}")
        for part in parts:
            kind, where = part.get("type"), f"messages.{number}.content"
            if kind == "text":
                texts.append(str(part.get("text") or ""))
            elif kind == "image_url" and "image" not in row:
                url = part.get("image_url")
                row["image"] = url.get("url") if isinstance(url, dict) else url
            else:
                what = "a second image" if kind == "image_url" else f"a part of type {kind!r}"
                raise Problem(400, f"{where}: {what}", "one item has texts and at most one image_url", where)
    if text := "\n".join(filter(None, texts)):
        row["title"] = text
    if not row:
        raise Problem(400, "messages hold neither a text nor an image", param="messages")
    return row


def _not_empty(text: str, where: str) -> str:
    if not text.strip():
        raise Problem(400, f"{where} is empty", param=where)
    return text
