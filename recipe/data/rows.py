"""What every dataset's rows have in common: verl's columns, and a reason if there is no row."""

import pyarrow as pa


class Malformed(ValueError):
    """A record that cannot be trained on; the message is the reason in the quarantine file."""


def is_encodable(text: str) -> bool:
    """Whether it can be written at all; JSON may hold halves of characters (lone surrogates)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def readable_name(name: object) -> str:
    """A record's own name as text, halves of characters replaced."""
    return str(name).encode(errors="replace").decode()


def row_schema(**extra_info: pa.DataType) -> pa.Schema:
    """verl's columns of a row; a dataset's own `extra_info` fields follow the common ones."""
    common = {"index": pa.int64(), "problem_id": pa.string(), "split": pa.string()}
    return pa.schema(
        {
            "data_source": pa.string(),
            "prompt": pa.list_(pa.struct({"role": pa.string(), "content": pa.string()})),
            "ability": pa.string(),
            "reward_model": pa.struct({"style": pa.string(), "ground_truth": pa.string()}),
            "extra_info": pa.struct(common | extra_info),
        }
    )
