"""Eight float32 numbers at once in a function that numba compiles: the part of a loop that LLVM cannot vectorize.

A row is resampled by reading neighbors at places that are close together but not evenly spaced. Compilers turn that
into eight single loads. Eight neighbors that lie within eight (or sixteen) consecutive numbers can be read by one (or
two) wide loads and put in order by a permutation, which processors with AVX2 do in one instruction. Elsewhere `near`
and `wide` are the eight single loads.

Addresses are plain integers, as ``array.ctypes.data`` gives them: nothing here checks bounds.
"""

from __future__ import annotations

import sys
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


def _one_by_one(
    builder: ir.IRBuilder, address: ir.Value, places: ir.Value, kind: ir.Type = _FLOAT, step: ir.Type | None = None
) -> ir.Value:
    """The eight numbers of ``kind`` at ``places`` from ``address``, counted in numbers of the kind ``step``."""
    step, align = step or kind, None if step is None else step.width // 8
    out: ir.Value = ir.Constant(ir.VectorType(kind, COUNT), ir.Undefined)
    base = _at(builder, address, step)
    for lane in range(COUNT):
        place = ir.Constant(_INT, lane)
        at = builder.gep(base, [builder.extract_element(places, place)], source_etype=step)
        value = builder.load(builder.bitcast(at, kind.as_pointer()), typ=kind, align=align)
        out = builder.insert_element(out, value, place)
    return out


def _joined(builder: ir.IRBuilder, *quarters: ir.Value) -> ir.Value:
    """Four pairs as eight numbers."""
    four = ir.Constant(ir.VectorType(_INT, 4), list(range(4)))
    halves = (builder.shuffle_vector(quarters[k], quarters[k + 1], four) for k in (0, 2))
    return builder.shuffle_vector(*halves, _ORDER)


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
def load_flat_places(context, rows, columns, width):
    """``row * width + column`` of the eight int32 from the address ``rows`` and the eight from ``columns``."""

    def build(context, builder, signature, values):
        down, along = _load(builder, values[0], _INTS), _load(builder, values[1], _INTS)
        return builder.add(builder.mul(down, _splatted(builder, values[2])), along)

    return _places(types.uintp, types.uintp, types.int32), build


@intrinsic
def store_two_taps(context, first, weights, u, step, offset, limit):
    """The two taps of bilinear interpolation of the pixels ``u`` to ``u + 7``, at the places ``step * u + offset``.

    The places are held within ``limit``. Writes the first taps, int32, to the address ``first``, and their weights and
    those of the second taps, float32, to the two addresses ``weights``.
    """

    def build(context, builder, signature, values):
        first, weights, u, step, offset, limit = values
        doubles = ir.VectorType(ir.DoubleType(), COUNT)
        start = _splatted(builder, builder.sitofp(u, ir.DoubleType()))
        each = builder.fadd(start, ir.Constant(doubles, [float(k) for k in range(COUNT)]))
        place = _called(builder, "llvm.fmuladd.v8f64", each, _splatted(builder, step), _splatted(builder, offset))
        high, low = _splatted(builder, limit), _splatted(builder, builder.fneg(limit))
        place = builder.select(builder.fcmp_ordered("<", place, high), place, high)
        place = builder.select(builder.fcmp_ordered(">", place, low), place, low)
        at = _called(builder, "llvm.floor.v8f64", place)
        builder.store(builder.fptosi(at, _INTS), _at(builder, first, _INTS), align=4)
        second = builder.fsub(place, at)
        for index, weight in enumerate((builder.fsub(ir.Constant(doubles, [1.0] * COUNT), second), second)):
            address = builder.extract_value(weights, index)
            builder.store(builder.fptrunc(weight, _FLOATS), _at(builder, address, _FLOATS), align=4)
        return context.get_dummy_value()

    number = types.float64
    return types.none(types.uintp, types.UniTuple(types.uintp, 2), types.int64, number, number, number), build


@intrinsic
def prefetch(context, address):
    """Prefetch the memory at ``address``; an invalid one is ignored."""

    def build(context, builder, signature, values):
        pointer = _at(builder, values[0], ir.IntType(8))
        how = [ir.Constant(_INT, number) for number in (0, 3, 1)]  # to be read, soon and again; data
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, _INT, _INT, _INT])
        name = "llvm.prefetch.p0"
        builder.call(builder.module.globals.get(name) or ir.Function(builder.module, kind, name), [pointer, *how])
        return context.get_dummy_value()

    return types.none(types.uintp), build


@intrinsic
def store(context, address, lanes):
    """Write eight float32 to ``address``."""

    def build(context, builder, signature, values):
        builder.store(values[1], _at(builder, values[0], _FLOATS), align=4)
        return context.get_dummy_value()

    return types.none(types.uintp, _lanes), build


@intrinsic
def store_bytes(context, address, lanes):
    """Write eight float32, none of them NaN, to ``address`` as uint8, rounded and clipped."""

    def build(context, builder, signature, values):
        value = _called(builder, "llvm.rint.v8f32", values[1])
        low, high = (ir.Constant(_FLOATS, [bound] * COUNT) for bound in (0.0, 255.0))
        value = builder.select(builder.fcmp_ordered("<", value, low), low, value)
        value = builder.select(builder.fcmp_ordered(">", value, high), high, value)
        bytes_ = builder.trunc(builder.fptosi(value, _INTS), ir.VectorType(ir.IntType(8), COUNT))
        builder.store(bytes_, _at(builder, values[0], bytes_.type), align=1)
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
def pairs(context, address, places):
    """The float32 at ``address + 4 * place`` and those after them, for any places: one load for each pair."""

    def build(context, builder, signature, values):
        address, places = values
        base, pair = _at(builder, address, _FLOAT), ir.VectorType(_FLOAT, 2)
        loaded = []
        for lane in range(COUNT):
            place = builder.extract_element(places, ir.Constant(_INT, lane))
            at = builder.bitcast(builder.gep(base, [place], source_etype=_FLOAT), pair.as_pointer())
            loaded.append(builder.load(at, typ=pair, align=4))
        # Halves of a register hold the pairs 0, 1, 4, 5 and 2, 3, 6, 7: x86 shuffles within halves.
        some, others = (_joined(builder, *(loaded[lane] for lane in four)) for four in ((0, 1, 4, 5), (2, 3, 6, 7)))
        even, odd = ([k + first for k in (0, 2, 8, 10, 4, 6, 12, 14)] for first in (0, 1))
        both = [builder.shuffle_vector(some, others, ir.Constant(_INTS, order)) for order in (even, odd)]
        return context.make_tuple(builder, signature.return_type, both)

    return types.UniTuple(_lanes, 2)(types.uintp, _places), build


@intrinsic
def pairs_of_bytes(context, address, places):
    """The uint8 at ``address + place`` and those after them, as float32, for any places: one load for each pair."""

    def build(context, builder, signature, values):
        address, places = values
        loaded = _one_by_one(builder, address, places, ir.IntType(16), ir.IntType(8))
        kind = loaded.type
        first = builder.and_(loaded, ir.Constant(kind, [255] * COUNT))
        second = builder.lshr(loaded, ir.Constant(kind, [8] * COUNT))
        if sys.byteorder == "big":
            first, second = second, first
        both = [builder.uitofp(part, _FLOATS) for part in (first, second)]
        return context.make_tuple(builder, signature.return_type, both)

    return types.UniTuple(_lanes, 2)(types.uintp, _places), build


@intrinsic
def has_nan(context, lanes):
    """Whether any of the eight is NaN."""

    def build(context, builder, signature, values):
        strange = builder.fcmp_unordered("uno", values[0], values[0])
        bits = builder.bitcast(strange, ir.IntType(COUNT))
        return builder.icmp_unsigned("!=", bits, ir.Constant(ir.IntType(COUNT), 0))

    return types.boolean(_lanes), build
