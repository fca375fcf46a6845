"""Options of the indexes."""

from pydantic import BaseModel, ConfigDict


class NoOptions(BaseModel):
    """This index has no options."""

    model_config = ConfigDict(extra="forbid")
