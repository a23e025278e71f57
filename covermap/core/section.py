"""What all sections of a run config have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Base of all sections: unknown keys are refused, values cannot be changed after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @property
    def changed(self) -> set[str]:
        """Keys whose value is not the default: the config of a run names them all, so what was named tells nothing."""
        fields = type(self).model_fields
        return {key for key in fields if getattr(self, key) != fields[key].get_default(call_default_factory=True)}
