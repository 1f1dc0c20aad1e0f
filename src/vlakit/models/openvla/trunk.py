"""What every head stands on: towers, projector, further senses and the language model.

Module names are those of the released checkpoints, so state dicts need no translation but LayerScale's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from vlakit.errors import CheckpointMismatch, InvalidData
from vlakit.models.attention import quick_attention
from vlakit.models.network import Network
from vlakit.models.openvla.film import add_film
from vlakit.models.openvla.layers import ScalarProjector
from vlakit.models.openvla.projector import Projector
from vlakit.models.openvla.vision import VisionBackbone
from vlakit.processing.action_tokenizer import ActionTokenizer
from vlakit.schema import NO_LOSS, Inputs, TextBatch

_FILM = ("vision_backbone.*.blocks.*.scale.*", "vision_backbone.*.blocks.*.shift.*")


@dataclass(frozen=True)
class Senses:
    """What it sees beside one picture. images: cameras; proprio: numbers, 0 for none; film: towers hear the text."""

    images: int = 1
    proprio: int = 0
    film: bool = False


class Trunk(Network):
    """A vision-language-action model of the OpenVLA family, without what makes an answer of it.

    The sequence: BOS, patches image by image, a token of proprioception, the prompt, and what follows.
    """

    kind = "openvla"
    of_the_run = ("head", "head_options", "film")
    added_parts: tuple[str, ...] = ()  # of the head

    def __init__(
        self,
        vision_backbone: VisionBackbone,
        language_model: LlamaForCausalLM,
        tokens: ActionTokenizer | None = None,
        senses: Senses | None = None,
    ) -> None:
        """tokens: which ids are actions; None: the 256 below the language model's padding id."""
        super().__init__()
        self.senses = senses or Senses()
        self.vision_backbone = vision_backbone
        self.hidden_size: int = language_model.config.hidden_size
        self.projector = Projector(vision_backbone.width, self.hidden_size, fused=len(vision_backbone.towers) > 1)
        self.language_model = language_model
        self.tokens = tokens or ActionTokenizer(padding_id=language_model.config.pad_token_id or 32000)
        if self.senses.proprio:
            self.proprio_projector = ScalarProjector(self.senses.proprio, self.hidden_size)
        if self.senses.film:
            add_film(vision_backbone.towers, self.hidden_size)

    @property
    def encoder(self) -> nn.Module:
        """The vision towers."""
        return self.vision_backbone

    @property
    def feature_shape(self) -> tuple[int, int]:
        """(N, D_v)."""
        return self.n_patches, self.vision_backbone.width

    def features(self, inputs: Inputs) -> Tensor:
        """(B, N, D_v) patch features of the vision towers, image by image."""
        return self.image_features(self.pixels(inputs), self.heard(text_of(inputs)) if self.senses.film else None)

    @property
    def placeholders(self) -> Mapping[str, str]:
        """`{last}`: the last language model layer."""
        return {"last": str(self.language_model.config.num_hidden_layers - 1)}

    @property
    def parts(self) -> Mapping[str, str]:
        """Towers and language model by their parts, the projectors and the head as one each."""
        return {part: part for part in dict.fromkeys(_part_of(name) for name, _ in self.named_parameters())}

    @property
    def additions(self) -> Sequence[str]:
        """The head, the projector of proprioception and FiLM: no vision-language model has them."""
        proprio = ("proprio_projector.*",) if self.senses.proprio else ()
        return (*(f"{part}.*" for part in self.added_parts), *proprio, *(_FILM if self.senses.film else ()))

    @property
    def n_patches(self) -> int:
        """N, positions that the images take in the sequence."""
        return self.vision_backbone.n_patches * self.senses.images

    def pixels(self, inputs: Inputs) -> Tensor:
        """(B, 3 k, S, S), or (B, images, 3 k, S, S) of several cameras, in the towers' dtype: the present frames."""
        towers, cameras = self.vision_backbone, list(inputs.pixels.values())  # each (B, 1, 3 k, S, S)
        needed = (3 * len(towers.towers), towers.image_size, towers.image_size)
        for frames in cameras:
            if frames.shape[2:] != needed:
                raise CheckpointMismatch(
                    f"an image arrives as {tuple(frames.shape[2:])}, the towers need {needed}",
                    where="processor: image_size, channel_statistics",
                    do="set image_size to that of the towers, and one name of channel_statistics for each",
                )
        if len(cameras) != self.senses.images:
            raise CheckpointMismatch(
                f"{len(cameras)} images arrive, the network was built for {self.senses.images}",
                where=f"processor: cameras {list(inputs.pixels)}",
                do="name as many cameras as the network was trained with",
            )
        dtype = next(self.vision_backbone.parameters()).dtype
        present = [frames[:, -1].to(dtype) for frames in cameras]
        return present[0] if len(present) == 1 else torch.stack(present, dim=1)

    def image_features(self, pixel_values: Tensor, text: Tensor | None = None) -> Tensor:
        """(B, 3 k, S, S) or (B, images, 3 k, S, S) -> (B, N, D_v); text (B, D): what FiLM makes of it."""
        if pixel_values.ndim == 4:
            return self.vision_backbone(pixel_values, text)
        rows, images = pixel_values.shape[:2]
        heard = None if text is None else text.repeat_interleave(images, dim=0)
        features = self.vision_backbone(pixel_values.flatten(0, 1), heard)  # (B images, N / images, D_v)
        return features.reshape(rows, -1, features.shape[-1])

    def encode_image(self, pixel_values: Tensor, text: Tensor | None = None) -> Tensor:
        """Pixels as `pixels` returns them -> (B, N, D)."""
        return self.projector(self.image_features(pixel_values, text))

    def context(self, inputs: Inputs, text: Tensor | None = None) -> Tensor:
        """(B, N, D), or (B, N + 1, D) with proprioception: what stands behind BOS. text (B, D): see `heard`."""
        known = inputs.features
        if known is None:
            heard = (self.heard(text_of(inputs)) if text is None else text) if self.senses.film else None
            patches = self.encode_image(self.pixels(inputs), heard)
        else:
            patches = self.projector(known)
        if not self.senses.proprio:
            return patches
        if inputs.proprio is None or inputs.proprio.shape[-1] != self.senses.proprio:
            size = 0 if inputs.proprio is None else inputs.proprio.shape[-1]
            raise InvalidData(
                f"proprio of {size} numbers, the network was built for {self.senses.proprio}",
                where="batch",
                do="set model.processor.proprio to what the network was trained with",
            )
        token = self.proprio_projector(inputs.proprio[:, -1:])  # (B, 1, D)
        return torch.cat([patches, token.to(patches.dtype)], dim=1)

    def heard(self, text: TextBatch) -> Tensor:
        """(B, D) that conditions FiLM: the mean of the prompt's embeddings."""
        return self.mean_embedding(text.ids, (text.mask > 0) & (text.labels == NO_LOSS))

    def mean_embedding(self, ids: Tensor, counted: Tensor) -> Tensor:
        """(B, D) mean of the embeddings of ids (B, T) where counted (B, T) bool."""
        weight = counted.to(self.embed(ids).dtype)[..., None]
        return (self.embed(ids) * weight).sum(dim=1) / weight.sum(dim=1)

    def embed(self, ids: Tensor) -> Tensor:
        """Ids (B, T) -> (B, T, D)."""
        return self.language_model.get_input_embeddings()(ids)

    def splice(self, patches: Tensor, input_ids: Tensor) -> Tensor:
        """(B, N, D) and ids (B, T) -> (B, N+T, D): BOS, image, prompt and what follows."""
        return behind_bos(patches, self.embed(input_ids))

    def hidden_states(self, sequence: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, L, D) -> (B, L, D) after the final norm, for right-padded rows; `mask` (B, 1, L, L) bool if not causal.

        Without a mask attention is causal, so no real position ever sees the padding behind it, and SDPA keeps its fast
        path.
        """
        model = self.language_model.model
        with quick_attention():
            return model(inputs_embeds=sequence, attention_mask=mask, use_cache=False).last_hidden_state


def behind_bos(patches: Tensor, text: Tensor) -> Tensor:
    """(B, N, D) and embedded text (B, T, D) -> (B, N+T, D)."""
    return torch.cat([text[:, :1], patches.to(text.dtype), text[:, 1:]], dim=1)


def text_of(inputs: Inputs) -> TextBatch:
    """The text of a batch. Raises InvalidData where there is none."""
    if inputs.text is None:
        raise InvalidData("the batch has no text", where="OpenVLA", do="prepare it with a processor of the kind tokens")
    return inputs.text


def check_ids(ids: Tensor, rows: int, allowed: tuple[int, int], *, width: int | None = None) -> None:
    """Raise InvalidData unless ids (B, n) are one row an observation, of `width` if that is fixed, within `allowed`."""
    first, last = allowed
    shape_fits = ids.ndim == 2 and len(ids) == rows and ids.shape[1] > 0 and width in (None, ids.shape[1])
    if not shape_fits or ((ids < first) | (ids >= last)).any():
        raise InvalidData(
            f"answers {tuple(ids.shape)} to {rows} observations, or an id outside {first}:{last}",
            where="ids",
            do="pass one row of ids an observation, as `sample` returns them",
        )


def _part_of(name: str) -> str:
    """One component of a parameter's name for projectors and heads, two for lm_head, three elsewhere.

    >>> _part_of("language_model.model.layers.31.mlp.up_proj.weight"), _part_of("projector.fc1.bias")
    ('language_model.model.layers', 'projector')
    """
    depth = 2 if name.startswith("language_model.lm_head") else 3
    return ".".join(name.split(".")[: depth if name.startswith(("vision_backbone.", "language_model.")) else 1])
