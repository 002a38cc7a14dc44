"""LoRA adapters from folders, loaded into an engine when a request asks for one; ray.serve.llm's own loader knows clouds."""

from typing import Any, ClassVar

from ray.llm._internal.common.models import global_id_manager
from ray.llm._internal.serve.core.configs.llm_config import DiskMultiplexConfig
from ray.llm._internal.serve.utils.lora_serve_utils import LoraModelLoader

ADAPTER = "offsft_adapter"
"""Field that the gateway adds to a request for an adapter: its folder. A client's own field of that name is taken out."""


class LocalAdapters(LoraModelLoader):
    """Finds an adapter's folder by the model that a request names."""

    folders: ClassVar[dict[str, str]] = {}
    """Folder by model; a process has one engine."""

    async def load_model_from_config(self, lora_model_id: str, llm_config: Any) -> DiskMultiplexConfig:
        """What the engine needs to load an adapter."""
        return DiskMultiplexConfig(
            model_id=lora_model_id,
            max_total_tokens=None,
            local_path=self.folders[lora_model_id],
            lora_assigned_int_id=global_id_manager.next(),
        )
