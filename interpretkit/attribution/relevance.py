"""The way back of relevance through the calls of functions that a model makes.

Behind the first layers gradients are coefficients: relevance divided by the value that it rests on. So a step without
a rule of its own shares relevance by its gradient, a signal that several steps take gets the sum of what they give
back, and nothing has to be divided by what may be zero. What a model does to its inputs before, to be called data
here, passes relevance itself: there a value of zero may have some. Which tensors are data is told by where they came
from, never by the order of calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interpretkit.attribution.affine import AffineMap, AffineMode
from interpretkit.attribution.function_calls import Call, activation_call, product_call, valued
from interpretkit.attribution.rules import Epsilon, Rule, Space
from interpretkit.errors import InputError
from interpretkit.networks.instrumentation import tensors_in

# From a layer, whether it sees data and whether it is a last one, to its rule.
Choose = Callable[[AffineMap, bool], Rule]


def _methods(*words: str) -> set[Any]:
    """Return the functions of these names, as functions of torch, of tensors, and of neural networks."""
    found = set()
    for name in " ".join(words).split():
        found |= {getattr(place, name) for place in (torch, Tensor, F) if hasattr(place, name)}
    return found


# They move numbers, and leave each as it is.
_MOVES = _methods(
    "view view_as reshape reshape_as flatten unflatten ravel squeeze squeeze_ unsqueeze unsqueeze_ "
    "permute transpose transpose_ swapaxes swapdims movedim moveaxis t t_ adjoint expand expand_as "
    "broadcast_to repeat repeat_interleave tile flip fliplr flipud rot90 roll narrow select "
    "index_select gather take take_along_dim split split_with_sizes tensor_split chunk unbind hsplit "
    "vsplit dsplit cat concat concatenate stack hstack vstack dstack clone contiguous to float double "
    "half bfloat16 type type_as cpu cuda pixel_shuffle pixel_unshuffle channel_shuffle pad unfold "
    "as_strided masked_fill masked_fill_ masked_select diagonal tril triu alias __getitem__ "
    "__setitem__ copy_ zero_ fill_ where block_diag constant_pad_nd"
) | {Tensor.T.__get__, Tensor.mT.__get__, Tensor.H.__get__, Tensor.mH.__get__}  # type: ignore[attr-defined]
_DROPOUTS = {
    *(
        F.dropout,
        F.dropout1d,
        F.dropout2d,
        F.dropout3d,
        F.alpha_dropout,
        F.feature_alpha_dropout,
        torch.dropout,
    ),
}
# What they write to need not be data before.
_WRITES = {Tensor.__setitem__, Tensor.copy_}
_RESCALINGS = _methods(
    "add add_ sub sub_ subtract subtract_ mul mul_ multiply multiply_ div div_ divide divide_ "
    "true_divide true_divide_ rsub neg neg_ negative __add__ __radd__ __iadd__ __sub__ __rsub__ "
    "__isub__ __mul__ __rmul__ __imul__ __truediv__ __itruediv__ __neg__"
)
# Of the activation functions those that rise or fall everywhere, which take bounds to bounds.
_MONOTONE = _methods(
    "relu relu_ relu6 hardtanh hardtanh_ elu elu_ selu selu_ celu leaky_relu leaky_relu_ hardsigmoid "
    "sigmoid sigmoid_ tanh tanh_ softsign tanhshrink softplus logsigmoid exp exp_ clamp clamp_"
)
# They tell of a tensor, and give no signal.
_QUESTIONS = {
    "size",
    "dim",
    "ndimension",
    "numel",
    "nelement",
    "stride",
    "is_contiguous",
    "is_floating_point",
    "is_complex",
    "storage_offset",
    "element_size",
    "data_ptr",
    "get_device",
    "detach",
    "__len__",
    "__hash__",
    "__repr__",
    "__bool__",
    "zeros_like",
    "ones_like",
    "full_like",
    "empty_like",
    "rand_like",
    "randn_like",
    "new_zeros",
    "new_ones",
    "new_full",
    "new_empty",
    "new_tensor",
    "is_nonzero",
    "is_same_size",
}
_NUMBERWISE = _methods(
    "pow sqrt rsqrt log log1p log2 log10 expm1 exp2 reciprocal sin cos tan atan asinh erf sinc "
    "threshold hardshrink softshrink float_power __pow__ __rtruediv__ nan_to_num normalize "
    "local_response_norm"
)
_SOFTMAXES = _methods("softmax log_softmax softmin")
_QUOTIENTS = _methods("div divide true_divide __truediv__ div_ divide_ __itruediv__")
# Functions that are linear in each of these arguments.
_BILINEAR: dict[Any, tuple[int, int]] = {
    **dict.fromkeys(_methods("matmul mm bmm mv dot inner outer ger vdot kron"), (0, 1)),
    **dict.fromkeys(_methods("tensordot bilinear __matmul__ __rmatmul__ cross"), (0, 1)),
    **dict.fromkeys(_methods("addmm addbmm baddbmm addmv addr addcmul"), (1, 2)),
}
_TRANSPOSED = {torch.conv_transpose1d: 1, torch.conv_transpose2d: 2, torch.conv_transpose3d: 3}
_REFUSED = _methods(
    "lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell cdist "
    "pairwise_distance cosine_similarity"
)


@dataclass(frozen=True)
class _Data:
    """A tensor of data, with tensors that go its way: they have its shape and its strides.

    Attributes
    ----------
    tensor : Tensor
        The data.
    low, high : Tensor
        The least and the largest values that they could have.
    zeros, ones : Tensor
        Both are changed as data are when they are moved. They differ where the numbers are inputs, and are the same
        where constants stand.
    """

    tensor: Tensor
    low: Tensor
    high: Tensor
    zeros: Tensor
    ones: Tensor

    @property
    def followers(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The tensors that go its way."""
        return self.low, self.high, self.zeros, self.ones

    def space(self) -> Space:
        """Return what is known of the data now; a copy, for the model may change them in place."""
        return Space(self.low.clone(), self.high.clone(), self.zeros != self.ones)


class _Coefficients(torch.autograd.Function):
    """Where data become a signal: coefficients come back, and relevance goes on."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        # A copy is kept, for the model may change its input in place.
        ctx.value = x.detach().clone()
        return x.data

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * ctx.value


class _Ruled(torch.autograd.Function):
    """A value whose coefficients go back by a rule, which has kept what it needs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, rule: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.rule = rule
        return value.data

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.rule(gradients[0]).detach(), None, None


class RelevanceMode(AffineMode):
    """Gives every step of a model a way back for relevance.

    Parameters
    ----------
    choose : callable
        Gives each layer its rule.
    numbering : bool
        Whether :func:`last_layers` is going to be asked.

    Attributes
    ----------
    met : int
        How many convolutions and linear layers have run.
    """

    def __init__(self, choose: Choose, *, numbering: bool = False) -> None:
        super().__init__()
        self._choose = choose
        self._numbering = numbering
        # By id; the tensors are held, so that no other gets the same.
        self._data: dict[int, _Data] = {}
        self._attention: dict[int, Tensor] = {}

    def enter(self, leaf: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Return the model's input, made from a leaf whose gradient is going to be its relevance.

        It lies between `low` and `high`.
        """
        entry = leaf.clone()
        # The same strides, for they follow the data through views.
        ends = (torch.empty_like(entry, requires_grad=False).copy_(bound) for bound in (low, high))
        self._mark(entry, *ends, torch.zeros_like(entry), torch.ones_like(entry))
        return entry

    def leave(self, outputs: Tensor) -> Tensor:
        """Return a model's outputs as a signal."""
        return self._signal(outputs)

    # What is called

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if not torch.is_grad_enabled() or getattr(func, "__name__", "") in _QUESTIONS:
            return func(*args, **kwargs)
        tensors = list(tensors_in((args, kwargs)))
        if not any(tensor.requires_grad for tensor in tensors):
            return func(*args, **kwargs)
        if func in _REFUSED:
            raise InputError(
                f"model: runs {func.__name__}, for which relevance propagation has no rule; expected convolutions, "
                "linear layers, attention and the usual steps between them"
            )
        steps = _IN_STEPS.get(func)
        if steps is not None:
            return steps(self, func, *args, **kwargs)
        if not args and func in (*_LAYERS, F.batch_norm):
            args, kwargs = (kwargs["input"],), {key: kwargs[key] for key in kwargs if key != "input"}
        data = [tensor for tensor in tensors if self._find(tensor) is not None]
        if data:
            done, result = self._of_data(func, args, kwargs, tensors, data)
            if done:
                return result
            args, kwargs = self._signals(func, args, kwargs)
        return super().__torch_function__(func, types, args, kwargs)

    # Layers

    def affine(self, step: AffineMap, output: Tensor) -> Tensor:
        """Return a layer's output, with the way back that its rule gives."""
        result = self._layer(step, output)
        if self._numbering and result.requires_grad and step.kind != "batch_norm":
            return _Numbered.apply(result, step.number)  # type: ignore[return-value]
        return result

    def _layer(self, step: AffineMap, output: Tensor) -> Tensor:
        if step.weight.requires_grad:
            if not step.x.requires_grad:
                return output
            # A product of two signals.
            x, weight = step.x, step.weight
            path = step.apply(x, weight.detach()) + step.apply(x.detach(), weight)
            return valued(path / 2 if step.bias is None else path / 2 + step.bias, output)
        if not step.x.requires_grad:
            return output
        data = self._find(step.x)
        if data is None:
            return self._hidden(step, output)
        if step.kind == "batch_norm":
            bias = 0 if step.bias is None else step.bias
            ends = [step.apply(bound, step.weight) + bias for bound in (data.low, data.high)]
            return self._mark(
                valued(step.x, output), torch.minimum(*ends), torch.maximum(*ends), data.zeros, data.ones
            )
        rule, kept = self._choose(step, True), _kept(step)
        value, space = output.detach().clone(), data.space()
        return _ruled(step, output, lambda given: rule.relevance(kept, value, given, space))

    def _hidden(self, step: AffineMap, output: Tensor) -> Tensor:
        rule = self._choose(step, False)
        value = output.detach()
        if isinstance(rule, Epsilon):
            # The ordinary way back does it, and costs least.
            return output if rule.epsilon == 0 else valued(output * rule.kept(value), value)
        kept, value = _kept(step), value.clone()
        return _ruled(step, output, lambda given: rule.coefficients(kept, value, given))

    def activation(self, call: Call) -> Tensor | None:
        """Return an activation's output, to whose input relevance passes as it is."""
        if not call.x.requires_grad:
            return None
        return _passed_on(call.x, call.apply(call.x.detach()))

    def other(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call any other function."""
        if func in _TRANSPOSED:
            return self._transposed(func, args, kwargs)
        if func in _SOFTMAXES:
            result = func(*args, **kwargs)
            passed = _passed_on(args[0] if args else kwargs["input"], result.detach())
            self._attention[id(passed)] = passed
            return passed
        if func in _MOVES or func in _DROPOUTS:
            result = func(*args, **kwargs)
            if any(id(tensor) in self._attention for tensor in tensors_in((args, kwargs))):
                self._attention |= {id(tensor): tensor for tensor in tensors_in(result)}
            return result
        product = product_call(func, args)
        if product is not None:
            return self._product(*product)
        if func in _NUMBERWISE and isinstance(args[0] if args else None, Tensor):
            # An exponent or a threshold that is a signal itself is taken as it is.
            rest = [value.detach() if isinstance(value, Tensor) else value for value in args[1:]]
            result = func(args[0].detach(), *rest, **kwargs)
            return _passed_on(args[0], result) if result.shape == args[0].shape else func(*args, **kwargs)
        if func in _QUOTIENTS and len(args) > 1 and isinstance(args[1], Tensor) and args[1].requires_grad:
            # What a signal is divided by scales it, as a norm does, and gets none.
            return func(args[0], args[1].detach(), *args[2:], **kwargs)
        if func in _BILINEAR or func is torch.einsum:
            return self._shared(func, args, kwargs)
        if func is F.grid_sample:
            grid = args[1] if len(args) > 1 else kwargs["grid"]
            rest = {name: value for name, value in kwargs.items() if name not in {"input", "grid"}}
            return func(args[0] if args else kwargs["input"], grid.detach(), *args[2:], **rest)
        return func(*args, **kwargs)

    def _product(self, first: Tensor, second: Tensor, inplace: bool) -> Tensor:
        """Give each of two signals half, or all to the other where one is a softmax."""
        signals = [tensor for tensor in (first, second) if tensor.requires_grad]
        if len(signals) < 2:
            return first.mul_(second) if inplace else first * second
        weights = [id(tensor) in self._attention for tensor in (first, second)]
        a, b = first.detach().clone(), second.detach().clone()
        path = (first * b + a * second) / 2
        if weights[0] != weights[1]:
            path = a * second if weights[0] else first * b
        result = valued(path, a * b)
        return first.copy_(result) if inplace else result

    def _shared(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Give the factors of a product of several signals equal parts, and a softmax among them none."""
        if func is torch.einsum:
            operands = (
                list(args[1]) if len(args) == 2 and isinstance(args[1], (list, tuple)) else list(args[1:])
            )
            args, factors = (args[0], *operands), list(range(1, len(operands) + 1))
        else:
            factors = [place for place in _BILINEAR[func] if place < len(args)]
        live = [place for place in factors if isinstance(args[place], Tensor) and args[place].requires_grad]
        if len(live) < 2:
            return func(*args, **kwargs)
        taken = [place for place in live if id(args[place]) not in self._attention] or live
        parts = []
        for one in taken:
            given = [a.detach() if place in live and place != one else a for place, a in enumerate(args)]
            parts.append(func(*given, **kwargs))
        return sum(parts[1:], parts[0]) / len(parts)

    def _transposed(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        given = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
        x, weight, bias = given.pop("input"), given.pop("weight"), given.pop("bias", None)
        rest = args[3:]
        if bias is not None:
            bias = bias.reshape(-1, *[1] * _TRANSPOSED[func])
        step = AffineMap(
            "transposed", x, weight, bias, lambda x, w: func(x, w, None, *rest, **given), self.met
        )
        self.met += 1
        return self.affine(step, func(*args, **kwargs))

    # Data

    def _mark(self, tensor: Tensor, *followers: Tensor) -> Tensor:
        self._data[id(tensor)] = _Data(tensor, *(follower.detach() for follower in followers))
        return tensor

    def _find(self, tensor: Tensor) -> _Data | None:
        """Return what is known of a tensor of data; None for any other."""
        found = self._data.get(id(tensor))
        if found is not None or not tensor.requires_grad:
            return found
        base = None if tensor._base is None else self._data.get(id(tensor._base))
        if base is None:
            return None
        # Another view of data that something was written to.
        place = (tensor.shape, tensor.stride(), tensor.storage_offset())
        self._mark(tensor, *(follower.as_strided(*place) for follower in base.followers))
        return self._data[id(tensor)]

    def _signal(self, tensor: Tensor) -> Tensor:
        return _Coefficients.apply(tensor) if self._find(tensor) is not None else tensor  # type: ignore[return-value]

    def _signals(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return a function's arguments with signals for data, but for the input of a layer with weights."""
        layer = func in _LAYERS or (func is F.batch_norm and _has_statistics(args, kwargs))
        if args and isinstance(args[0], Tensor) and self._find(args[0]) is not None:
            if layer:
                rest, named = _mapped((args[1:], kwargs), self._signal)
                return (args[0], *rest), named
            if _in_place(func, args, kwargs):
                self._become_signal(args[0])
        return _mapped((args, kwargs), self._signal)

    def _become_signal(self, tensor: Tensor) -> None:
        """Make a signal of data in place, with all their views, for something else is going to be written there."""
        root = tensor if tensor._base is None else tensor._base
        whole = self._find(root)
        if whole is not None:
            root.copy_(_Coefficients.apply(root.clone()))  # type: ignore[arg-type]
        shared = root.untyped_storage().data_ptr()
        self._data = {
            key: kept
            for key, kept in self._data.items()
            if kept.tensor.untyped_storage().data_ptr() != shared
        }

    def _of_data(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        tensors: Sequence[Tensor],
        data: Sequence[Tensor],
    ) -> tuple[bool, Any]:
        """Return whether a function leaves data data, and its result if so."""
        if func is F.batch_norm or func in _LAYERS:
            # As any layer; a batch norm that reckons its own statistics mixes the data.
            return False, None
        only = all(not tensor.requires_grad or self._find(tensor) is not None for tensor in tensors)
        if (func in _MOVES or (func in _DROPOUTS and not _drops(args, kwargs))) and only:
            return True, self._moved(func, args, kwargs)
        if func in _RESCALINGS and only and len(data) == 1:
            return self._rescaled(func, args, kwargs, data[0])
        if func in _MONOTONE and data[0] is (args[0] if args else None) and len(data) == 1 and only:
            return self._rescaled(func, args, kwargs, data[0])
        return False, None

    def _moved(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func in _WRITES and self._find(args[0]) is None:
            # Data are written among constants.
            root = args[0] if args[0]._base is None else args[0]._base
            self._mark(root, *(root.detach().clone() for _ in range(4)))
            if root is not args[0]:
                place = (args[0].shape, args[0].stride(), args[0].storage_offset())
                self._mark(args[0], *(each.as_strided(*place) for each in self._data[id(root)].followers))
        result = func(*args, **kwargs)
        with torch.no_grad():
            followers = [
                func(*_mapped(args, self._follower(place)), **_mapped(kwargs, self._follower(place)))
                for place in range(4)
            ]
        for made, *ends in zip(*(tensors_in(given) for given in (result, *followers)), strict=True):
            if made.requires_grad and id(made) not in self._data:
                self._mark(made, *ends)
        return result

    def _rescaled(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], x: Tensor
    ) -> tuple[bool, Any]:
        """Change each number by itself: its relevance stays what it is."""

        def changed(side: Callable[[Tensor], Tensor]) -> Tensor:
            # Copies, for the function may work in place.
            def copied(tensor: Tensor) -> Tensor:
                return side(tensor).detach().clone() if tensor is x else tensor

            return func(*_mapped(args, copied), **_mapped(kwargs, copied))

        with torch.no_grad():
            value = changed(lambda tensor: tensor)
            if not isinstance(value, Tensor) or value.shape != x.shape:
                return False, None
            ends = changed(self._follower(0)), changed(self._follower(1))
        low, high = torch.minimum(*ends), torch.maximum(*ends)
        own = self._data[id(x)]
        if _in_place(func, args, kwargs):
            x.copy_(valued(x.clone(), value))
            # In place too, so that the bounds of views change as well.
            own.low.copy_(low)
            own.high.copy_(high)
            return True, x
        return True, self._mark(valued(x, value), low, high, own.zeros, own.ones)

    def _follower(self, place: int) -> Callable[[Tensor], Tensor]:
        """Return the change of data to one of their followers; other tensors stay."""

        def change(tensor: Tensor) -> Tensor:
            found = self._find(tensor)
            return tensor if found is None else found.followers[place]

        return change

    # Functions in the steps that they stand for

    def _layer_norm(
        self,
        func: Any,
        input: Tensor,
        normalized_shape: Sequence[int],
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
        *_: Any,
    ) -> Tensor:
        axes = tuple(range(input.ndim - len(normalized_shape), input.ndim))
        value = func(input.detach(), normalized_shape, weight, bias, eps)
        return self._normalised(input, value, lambda x: x.mean(axes, keepdim=True), weight, eps)

    def _rms_norm(
        self,
        func: Any,
        input: Tensor,
        normalized_shape: Sequence[int],
        weight: Tensor | None = None,
        eps: float | None = None,
    ) -> Tensor:
        return _passed_on(self._signal(input), func(input.detach(), normalized_shape, weight, eps))

    def _group_norm(
        self,
        func: Any,
        input: Tensor,
        num_groups: int,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
        *_: Any,
    ) -> Tensor:
        def mean(x: Tensor) -> Tensor:
            groups = x.reshape(len(x), num_groups, -1)
            return groups.mean(2, keepdim=True).expand_as(groups).reshape(x.shape)

        value = func(input.detach(), num_groups, weight, bias, eps)
        scale = None if weight is None else weight.reshape(-1, *[1] * (input.ndim - 2))
        return self._normalised(input, value, mean, scale, eps)

    def _instance_norm(
        self,
        func: Any,
        input: Tensor,
        running_mean: Tensor | None = None,
        running_var: Tensor | None = None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        use_input_stats: bool = True,
        momentum: float = 0.1,
        eps: float = 1e-5,
        *_: Any,
    ) -> Tensor:
        if not use_input_stats and running_mean is not None:
            with self:
                return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
        axes = tuple(range(2, input.ndim))
        value = func(input.detach(), None, None, weight, bias, True, momentum, eps)
        scale = None if weight is None else weight.reshape(-1, *[1] * (input.ndim - 2))
        return self._normalised(input, value, lambda x: x.mean(axes, keepdim=True), scale, eps)

    def _normalised(
        self,
        given: Tensor,
        value: Tensor,
        mean: Callable[[Tensor], Tensor],
        scale: Tensor | None,
        eps: float,
    ) -> Tensor:
        """Take the spread that a norm divides by for a constant (Ali et al., 2022, arXiv:2202.07304)."""
        x = self._signal(given)
        centred = x - mean(x)
        by = (mean(centred.detach().square()) + eps).rsqrt()
        return valued(centred * (by if scale is None else by * scale), value)

    def _attended(
        self, func: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Take attention for constant weights of the values (Ali et al., 2022, arXiv:2202.07304)."""
        return func(query.detach(), key.detach(), self._signal(value), *args, **kwargs)

    def _multi_head(
        self, func: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        names = (
            *("embed_dim_to_check", "num_heads", "in_proj_weight", "in_proj_bias", "bias_k", "bias_v"),
            *("add_zero_attn", "dropout_p", "out_proj_weight", "out_proj_bias", "training"),
            *("key_padding_mask", "need_weights", "attn_mask", "use_separate_proj_weight"),
        )
        given = dict(zip(names, args, strict=False)) | kwargs
        if given.get("bias_k") is not None or given.get("add_zero_attn") or given.get("static_v") is not None:
            raise InputError(
                "model: attends with bias_k, add_zero_attn or static values, for which relevance propagation has no "
                "rule; expected attention without them"
            )
        own = {**given, "need_weights": True, "average_attn_weights": False, "training": False}
        with torch.no_grad():
            _, weights = func(query.detach(), key.detach(), value.detach(), **own)
        single = query.ndim == 2
        weights = weights[None] if single else weights
        width, heads = query.shape[-1], given["num_heads"]
        packed: Any = given.get("in_proj_weight")
        bias: Any = given.get("in_proj_bias")
        of_values = given["v_proj_weight"] if given.get("use_separate_proj_weight") else packed[2 * width :]
        with self:
            values = F.linear(value, of_values, None if bias is None else bias[2 * width :])
            values = values[:, None] if single else values  # (positions, examples, width)
            split = values.reshape(*values.shape[:2], heads, -1).permute(1, 2, 0, 3)
            mixed = torch.matmul(weights, split).permute(2, 0, 1, 3).flatten(2)
            output = F.linear(mixed, given["out_proj_weight"], given["out_proj_bias"])
            output = output[:, 0] if single else output
        if not given.get("need_weights", True):
            return output, None
        weights = weights.mean(1) if given.get("average_attn_weights", True) else weights
        return output, weights[0] if single else weights

    def _gated(self, func: Any, input: Tensor, dim: int = -1) -> Tensor:
        with self:
            first, second = input.chunk(2, dim)
            return first * second.sigmoid()


_IN_STEPS: Mapping[Any, Callable[..., Any]] = {
    **dict.fromkeys(_methods("layer_norm"), RelevanceMode._layer_norm),
    **dict.fromkeys(_methods("rms_norm"), RelevanceMode._rms_norm),
    **dict.fromkeys(_methods("group_norm"), RelevanceMode._group_norm),
    F.instance_norm: RelevanceMode._instance_norm,
    F.scaled_dot_product_attention: RelevanceMode._attended,
    F.multi_head_attention_forward: RelevanceMode._multi_head,
    F.glu: RelevanceMode._gated,
}
_LAYERS = {torch.conv1d, torch.conv2d, torch.conv3d, F.linear, *_TRANSPOSED}


class _Numbered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, number: int) -> Tensor:
        ctx.number = number
        return x.data

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def last_layers(outputs: Tensor) -> frozenset[int]:
    """Return the numbers of the layers that come last on the ways to outputs of a numbering mode."""
    found, seen, todo = set(), set(), [outputs.grad_fn]
    while todo:
        node: Any = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if type(node).__name__ == "_NumberedBackward":
            found.add(node.number)
        else:
            todo += [following for following, _ in node.next_functions]
    return frozenset(found)


class RunningModules:
    """Tells which modules a layer's call belongs to, by its weight or else by the module that is running."""

    def __init__(self, model: nn.Module) -> None:
        self._names: dict[int, dict[str, nn.Module]] = {}
        self._of_weights: dict[int, dict[str, nn.Module]] = {}
        self._running: list[nn.Module] = []
        self._modules = dict(model.named_modules(remove_duplicate=False))
        for name, module in self._modules.items():
            self._names.setdefault(id(module), {})[name] = module
            for key, parameter in module.named_parameters(recurse=False):
                if key == "weight":
                    self._of_weights.setdefault(id(parameter), {})[name] = module

    def watched(self) -> Iterator[Callable[[], None]]:
        """Watch which modules run, and yield what ends that."""
        for module in {id(module): module for module in self._modules.values()}.values():
            yield module.register_forward_pre_hook(self._begin).remove
            yield module.register_forward_hook(self._end, always_call=True).remove

    def _begin(self, module: nn.Module, given: Any) -> None:
        self._running.append(module)

    def _end(self, module: nn.Module, given: Any, output: Any) -> None:
        if self._running:
            self._running.pop()

    def of(self, step: AffineMap) -> Mapping[str, nn.Module]:
        """Return the modules of a call by name; the same module may have several."""
        found = self._of_weights.get(id(step.weight))
        if found is not None:
            return found
        return self._names[id(self._running[-1])] if self._running else {}

    def clear(self) -> None:
        """Forget what was running when a pass broke off."""
        self._running.clear()


def _kept(step: AffineMap) -> AffineMap:
    """Return a step whose input stays what it is when the model changes it in place."""
    return AffineMap(
        step.kind, step.x.detach().clone(), step.weight, step.bias, step.apply, step.number, step.merged
    )


def _ruled(step: AffineMap, output: Tensor, rule: Callable[[Tensor], Tensor]) -> Tensor:
    return _Ruled.apply(step.x, output.detach(), rule)  # type: ignore[return-value]


def _passed_on(x: Tensor, value: Tensor) -> Tensor:
    """Return `value`, whose relevance passes number by number to `x`; where nothing comes in there is none to pass."""
    given = x.detach()
    small = given.abs() <= torch.finfo(given.dtype).eps ** 2
    ratio = (value / given.masked_fill(small, 1)).masked_fill_(small, 0)
    return valued(x * ratio, value)


def _has_statistics(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Return whether a batch norm takes statistics that it has, rather than those of what it is given."""
    names = ("input", "running_mean", "running_var", "weight", "bias", "training")
    given: dict[str, Any] = {**dict(zip(names, args, strict=False)), **kwargs}
    return not given.get("training", False) and given.get("running_mean") is not None


def _in_place(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    call = activation_call(func, args, kwargs)
    if call is not None:
        return call.inplace
    name = getattr(func, "__name__", "")
    if name in {"__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__imatmul__", "__ipow__"}:
        return True
    if name.endswith("_") and not name.endswith("__"):
        return True
    return bool(kwargs.get("inplace")) or "out" in kwargs


def _drops(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Return whether a dropout is active."""
    return bool(args[2] if len(args) > 2 else kwargs.get("training", kwargs.get("train", True)))


def _mapped(given: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return nested arguments with every tensor changed."""
    if isinstance(given, Tensor):
        return change(given)
    if isinstance(given, dict):
        return {key: _mapped(value, change) for key, value in given.items()}
    if isinstance(given, (list, tuple)) and not isinstance(given, torch.Size):
        return type(given)(_mapped(value, change) for value in given)
    return given
