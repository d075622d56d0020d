"""Eight float32 numbers at once in a function that numba compiles: the part of a loop that LLVM cannot vectorise.

A row is resampled by reading neighbours at places that are close together but not evenly spaced. Compilers turn that
into eight single loads. Eight neighbours that lie within eight (or sixteen) consecutive numbers can be read by one (or
two) wide loads and put in order by a permutation, which processors with AVX2 do in one instruction. Elsewhere `near`
and `wide` are the eight single loads.

Addresses are plain integers, as ``array.ctypes.data`` gives them: nothing here checks bounds.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

COUNT = 8
_FLOAT, _INT = ir.FloatType(), ir.IntType(32)
_FLOATS, _INTS = ir.VectorType(_FLOAT, COUNT), ir.VectorType(_INT, COUNT)
_ORDER = ir.Constant(_INTS, list(range(COUNT)))


class _Lanes(types.Type):
    """The type of eight float32 or int32 numbers in a compiled function."""

    def __init__(self, name: str, vector: ir.VectorType) -> None:
        super().__init__(name=name)
        self.vector = vector


_lanes = _Lanes("float32x8", _FLOATS)
_places = _Lanes("int32x8", _INTS)


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: _Lanes) -> None:
        super().__init__(manager, kind, kind.vector)


def _has_avx2() -> bool:
    return bool(llvm.get_host_cpu_features().get("avx2", False))


_PERMUTES = _has_avx2()


def _at(builder: ir.IRBuilder, address: ir.Value, kind: ir.Type) -> ir.Value:
    return builder.inttoptr(address, kind.as_pointer())


def _load(builder: ir.IRBuilder, address: ir.Value, kind: ir.Type) -> ir.Value:
    value = builder.load(_at(builder, address, kind))
    value.align = 4
    return value


def _called(builder: ir.IRBuilder, name: str, *values: ir.Value) -> ir.Value:
    signature = ir.FunctionType(values[0].type, [value.type for value in values])
    module = builder.module
    function = module.globals.get(name) or ir.Function(module, signature, name)
    return builder.call(function, values)


def _splatted(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    vector = ir.VectorType(value.type, COUNT)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(_INT, 0))
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), ir.Constant(_INTS, [0] * COUNT))


def _one_by_one(builder: ir.IRBuilder, address: ir.Value, places: ir.Value, kind: ir.Type = _FLOAT) -> ir.Value:
    """The eight numbers of ``kind`` at ``places`` from ``address``."""
    out: ir.Value = ir.Constant(ir.VectorType(kind, COUNT), ir.Undefined)
    base = _at(builder, address, kind)
    for lane in range(COUNT):
        place = ir.Constant(_INT, lane)
        value = builder.load(builder.gep(base, [builder.extract_element(places, place)], source_etype=kind))
        out = builder.insert_element(out, value, place)
    return out


@intrinsic
def load(context, address):
    """Eight float32 from ``address``."""

    def build(context, builder, signature, values):
        return _load(builder, values[0], _FLOATS)

    return _lanes(types.uintp), build


@intrinsic
def load_bytes(context, address):
    """Eight uint8 from ``address`` as float32."""

    def build(context, builder, signature, values):
        value = builder.load(_at(builder, values[0], ir.VectorType(ir.IntType(8), COUNT)))
        value.align = 1
        return builder.uitofp(value, _FLOATS)

    return _lanes(types.uintp), build


@intrinsic
def load_places(context, address):
    """Eight int32 from ``address``: the order that `near`, `wide` and `apart` take."""

    def build(context, builder, signature, values):
        return _load(builder, values[0], _INTS)

    return _places(types.uintp), build


@intrinsic
def store(context, address, lanes):
    """Write eight float32 to ``address``."""

    def build(context, builder, signature, values):
        builder.store(values[1], _at(builder, values[0], _FLOATS), align=4)
        return context.get_dummy_value()

    return types.none(types.uintp, _lanes), build


@intrinsic
def splat(context, number):
    """One float32 eight times."""

    def build(context, builder, signature, values):
        return _splatted(builder, values[0])

    return _lanes(types.float32), build


@intrinsic
def add_product(context, one, two, total):
    """``one * two + total``, rounded once where the processor can."""

    def build(context, builder, signature, values):
        return _called(builder, "llvm.fmuladd.v8f32", *values)

    return _lanes(_lanes, _lanes, _lanes), build


@intrinsic
def subtract(context, one, two):
    """``one - two``."""

    def build(context, builder, signature, values):
        return builder.fsub(*values)

    return _lanes(_lanes, _lanes), build


@intrinsic
def multiply(context, one, two):
    """``one * two``."""

    def build(context, builder, signature, values):
        return builder.fmul(*values)

    return _lanes(_lanes, _lanes), build


@intrinsic
def near(context, address, places):
    """The float32 at ``address + 4 * place``, for places from 0 to 7."""

    def build(context, builder, signature, values):
        if not _PERMUTES:
            return _one_by_one(builder, *values)
        return _called(builder, "llvm.x86.avx2.permps", _load(builder, values[0], _FLOATS), values[1])

    return _lanes(types.uintp, _places), build


@intrinsic
def wide(context, address, places):
    """The float32 at ``address + 4 * place``, for places from 0 to 15."""

    def build(context, builder, signature, values):
        address, places = values
        if not _PERMUTES:
            return _one_by_one(builder, address, places)
        low = _called(builder, "llvm.x86.avx2.permps", _load(builder, address, _FLOATS), places)
        beyond = builder.add(address, ir.Constant(address.type, 4 * COUNT))
        high = _called(builder, "llvm.x86.avx2.permps", _load(builder, beyond, _FLOATS), places)
        eight = ir.Constant(_INTS, [COUNT] * COUNT)
        return builder.select(builder.icmp_signed(">=", places, eight), high, low)

    return _lanes(types.uintp, _places), build


@intrinsic
def apart(context, address, places):
    """The float32 at ``address + 4 * place``, for any places."""

    def build(context, builder, signature, values):
        return _one_by_one(builder, *values)

    return _lanes(types.uintp, _places), build


@intrinsic
def apart_bytes(context, address, places):
    """The uint8 at ``address + place`` as float32, for any places."""

    def build(context, builder, signature, values):
        address, places = values
        return builder.uitofp(_one_by_one(builder, address, places, ir.IntType(8)), _FLOATS)

    return _lanes(types.uintp, _places), build


@intrinsic
def has_nan(context, lanes):
    """Whether any of the eight is NaN."""

    def build(context, builder, signature, values):
        strange = builder.fcmp_unordered("uno", values[0], values[0])
        bits = builder.bitcast(strange, ir.IntType(COUNT))
        return builder.icmp_unsigned("!=", bits, ir.Constant(ir.IntType(COUNT), 0))

    return types.boolean(_lanes), build
