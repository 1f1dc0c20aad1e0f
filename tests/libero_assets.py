"""Boxes in place of LIBERO's meshes, enough for libero_object: joints and sites are the real ones, looks are not."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from vlakit.evaluation.suites.libero.setup import ASSET_FOLDERS

OBJECTS = ("milk", "cream_cheese", "tomato_sauce", "butter", "orange_juice", "chocolate_pudding")
TEXTURES = ("light-gray-floor-tile.png", "light-gray-plaster.png")
_HALF_SIZE = 0.02  # metres

_SCENE = """<mujoco model="floor">
  <asset>
    <texture name="texplane" type="2d" file="../textures/{0}"/>
    <texture name="tex-wall" type="2d" file="../textures/{1}"/>
    <material name="floorplane" texture="texplane"/>
    <material name="wall" texture="tex-wall"/>
  </asset>
  <worldbody>
    <body name="floor"><geom name="floor" type="plane" size="3 3 .125" material="floorplane"/></body>
    <light pos="0.5 0 3" dir="-0.2 0 -1" diffuse=".8 .8 .8"/>
    <camera name="frontview" pos="1.6 0 1.45" quat="0.56 0.43 0.43 0.56"/>
    <camera name="agentview" pos="0.5 0 1.35" quat="0.653 0.271 0.271 0.653"/>
  </worldbody>
</mujoco>
"""
_BODY = """<mujoco model="{name}">
  <worldbody><body>
    <body name="object">
      <geom name="g0" type="box" size="{h} {h} {h}" rgba="{rgba}" group="1"/>
      <geom name="g1" type="box" size="{h} {h} {h}" density="50" group="0" rgba="0 0 0 0"/>
      {region}
    </body>
    <site name="bottom_site" pos="0 0 -{h}" size="0.005" rgba="0 0 0 0"/>
    <site name="top_site" pos="0 0 {h}" size="0.005" rgba="0 0 0 0"/>
    <site name="horizontal_radius_site" pos="{h} {h} 0" size="0.005" rgba="0 0 0 0"/>
  </body></worldbody>
</mujoco>
"""
_REGION = '<site name="contain_region" type="box" pos="0 0 0.02" quat="1 0 0 0" size="0.08 0.08 0.04" rgba="0 0 0 0"/>'


def write_assets(folder: Path) -> Path:
    """Stand-ins for the scene and objects of pick_up_the_milk_and_place_it_in_the_basket."""
    for name in (*ASSET_FOLDERS, "textures"):
        (folder / name).mkdir(parents=True)
    for number, name in enumerate(TEXTURES):
        Image.new("RGB", (8, 8), (200, 200 - 60 * number, 180)).save(folder / "textures" / name)
    (folder / "scenes" / "libero_floor_base_style.xml").write_text(_SCENE.format(*TEXTURES))
    for number, name in enumerate(OBJECTS):
        _write(folder / "stable_hope_objects", name, f"{number / 6:.2f} 0.3 {1 - number / 6:.2f} 1")
    _write(folder / "stable_scanned_objects", "basket", "0.6 0.4 0.1 1", _REGION)
    return folder


def _write(folder: Path, name: str, rgba: str, region: str = "") -> None:
    (folder / name).mkdir()
    (folder / name / f"{name}.xml").write_text(_BODY.format(name=name, h=_HALF_SIZE, rgba=rgba, region=region))
