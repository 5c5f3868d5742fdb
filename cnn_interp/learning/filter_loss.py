"""The loss that makes each filter of a layer fire at one place, on objects of one category (Zhang, Wu & Zhu 2018).

A map of n positions is compared with n + 1 *templates*: one for each position μ, positive at μ and falling with the
distance from it, and a negative one for images in which the filter should stay silent. The loss is −MI(X; T), the
mutual information between the maps of a filter and the templates: it is least when every map fits one template well and
all templates are used alike.

References
----------
Q. Zhang, Y. N. Wu and S.-C. Zhu, "Interpretable convolutional neural networks", CVPR 2018.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from interpretkit.errors import InputError

BETA = 4.0
"""How fast a template falls off, in the published networks."""

Centre = Literal["peak", "centroid"]


def make_templates(height: int, width: int, *, beta: float = BETA) -> Tensor:
    """Return the templates of maps of a size, in units of τ.

    Parameters
    ----------
    height, width : int
        Of the maps.
    beta : float
        How fast a template falls off: 0 is reached at a distance of n / β, n the side of the map.

    Returns
    -------
    Tensor, (height · width + 1, height, width)
        For each position row by row max(1 − β ‖· − μ‖₁ / n, −1), where n is the geometric mean of height and width;
        the last one is the negative template, −1 everywhere.
    """
    if height < 1 or width < 1:
        raise InputError(f"height {height}, width {width}: expected at least 1")
    if not (math.isfinite(beta) and beta > 0):
        raise InputError(f"beta {beta!r}: expected a number above 0")
    rows = torch.arange(height).float()
    columns = torch.arange(width).float()
    by_row = (rows[:, None] - rows).abs()
    by_column = (columns[:, None] - columns).abs()
    distance = by_row[:, None, :, None] + by_column[None, :, None, :]
    positive = (1 - beta * distance / math.sqrt(height * width)).clamp_min(-1)
    return torch.cat([positive.flatten(0, 1), torch.full((1, height, width), -1.0)])


def template_fits(maps: Tensor, templates: Tensor) -> Tensor:
    """Return tr(x T) of maps and templates, with τ = 1 / (2n) of n positions.

    Parameters
    ----------
    maps : Tensor, (images, filters, h, w)
        Responses, none below 0.
    templates : Tensor, (templates, h, w)
        In units of τ.

    Returns
    -------
    Tensor, (images, filters, templates)
        How well each map fits each template.
    """
    if maps.ndim != 4 or maps.shape[2:] != templates.shape[1:]:
        raise InputError(
            f"maps of shape {tuple(maps.shape)}: expected (images, filters, h, w) with h and w "
            f"{tuple(templates.shape[1:])}"
        )
    return 0.5 / templates[0].numel() * (maps.flatten(2) @ templates.flatten(1).T)


def mutual_information(maps: Tensor, *, beta: float = BETA) -> Tensor:
    """Return the mutual information between the maps of each filter and the templates, in nats.

    Parameters
    ----------
    maps : Tensor, (images, filters, h, w)
        All images that there are: p(x|T) = e^{tr(x T)} / Z is normalised over them.
    beta : float
        See :func:`make_templates`.

    Returns
    -------
    Tensor, (filters,)
        From 0 to log min(images, templates). All templates are equally probable, as α = n / (1 + n) makes them.
    """
    templates = make_templates(maps.shape[2], maps.shape[3], beta=beta).to(maps)
    given_template = template_fits(maps, templates).log_softmax(0)
    marginal = given_template.logsumexp(2, keepdim=True) - math.log(len(templates))
    return (given_template.exp() * (given_template - marginal)).sum((0, 2)) / len(templates)


class TemplateMask(nn.Module):
    """Lets of each map only what lies near its centre through: max(x ∘ T / τ, 0).

    Parameters
    ----------
    filters : int
        How many filters the maps have.
    beta : float
        How fast a template falls off.
    centre : {"peak", "centroid"}
        Where a map's template stands: at its strongest position (of equals the first), as published, or at the rounded
        centre of gravity of its responses, as in the code that was released.
    learn_beta : bool
        Whether each filter learns a width of its own, as in the code that was released. The gradient goes through the
        masks, not through the loss.

    Attributes
    ----------
    closed : float
        The share of β that applies, from 0 (everything passes) to 1, so that training can close the masks slowly.
    """

    def __init__(
        self, filters: int, *, beta: float = BETA, centre: Centre = "peak", learn_beta: bool = False
    ) -> None:
        super().__init__()
        if centre not in get_args(Centre):
            raise InputError(f"centre {centre!r}: expected one of {', '.join(get_args(Centre))}")
        self.centre = centre
        self.closed = 1.0
        # Positive whatever a step does to it.
        log_beta = torch.full((filters,), math.log(beta))
        if learn_beta:
            self.log_beta = nn.Parameter(log_beta)
        else:
            self.register_buffer("log_beta", log_beta)

    def forward(self, maps: Tensor) -> Tensor:
        """Return masked maps, (images, filters, h, w)."""
        height, width = maps.shape[2:]
        row, column = self.centres(maps)
        rows = torch.arange(height, device=maps.device)
        columns = torch.arange(width, device=maps.device)
        distance = (rows - row[..., None]).abs()[..., None] + (columns - column[..., None]).abs()[
            ..., None, :
        ]
        beta = self.closed * self.log_beta.exp()[:, None, None]
        return (maps * (1 - beta * distance / math.sqrt(height * width))).clamp_min(0)

    def centres(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Return row and column of each map's centre, both (images, filters), without gradients."""
        height, width = maps.shape[2:]
        flat = maps.detach().flatten(2)
        if self.centre == "peak":
            # argmax may return any of equals.
            place = (flat == flat.amax(2, keepdim=True)).int().argmax(2)
            return place // width, place % width
        weights = flat.clamp_min(0).reshape(*flat.shape[:2], height, width)
        total = weights.sum((2, 3))
        rows = torch.arange(height, device=maps.device, dtype=maps.dtype)
        columns = torch.arange(width, device=maps.device, dtype=maps.dtype)
        # A silent map has its centre in the middle.
        row = torch.where(total > 0, (weights.sum(3) @ rows) / total.clamp_min(1e-12), (height - 1) / 2)
        column = torch.where(total > 0, (weights.sum(2) @ columns) / total.clamp_min(1e-12), (width - 1) / 2)
        return row.round().long(), column.round().long()


class FilterLoss(nn.Module):
    """−MI(X; T) of the filters of a layer, estimated batch by batch.

    The number that it returns has the gradient of the loss: what each map is to be drawn to, the template at its own
    strongest position on images of the filter's category and the negative one on all others, with Z as a running mean.
    Its value is the mean of −p(x|T̂) log [p(x|T̂) / p(x)] n_images over images, summed over filters.

    Parameters
    ----------
    filters : int
        How many filters the layer has.
    height, width : int
        Of its maps.
    categories : int
        How many categories there are.
    beta : float
        See :func:`make_templates`.
    momentum : float
        Of the running means, in units of a batch.
    all_templates : bool
        Whether the gradient sums over all templates, weighted by their probability, as the definition does; by default
        over the assigned one alone, as published. Summed over all, categories play no part.

    Notes
    -----
    The article gives the gradient without the minus sign that its loss has. Here it points down the loss, which the
    tests compare with the definition.
    """

    log_mean_fit: Tensor
    response: Tensor
    seen: Tensor
    steps: Tensor
    templates: Tensor

    def __init__(
        self,
        filters: int,
        height: int,
        width: int,
        *,
        categories: int = 1,
        beta: float = BETA,
        momentum: float = 0.95,
        all_templates: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise InputError(f"momentum {momentum!r}: expected from 0 to below 1")
        if filters < 1 or categories < 1:
            raise InputError(f"filters {filters}, categories {categories}: expected at least 1")
        self.momentum = momentum
        self.all_templates = all_templates
        templates = make_templates(height, width, beta=beta)
        self.register_buffer("templates", templates, persistent=False)
        self.register_buffer("log_mean_fit", torch.zeros(filters, len(templates)))
        self.register_buffer("response", torch.zeros(categories, filters))
        self.register_buffer("seen", torch.zeros(categories, dtype=torch.long))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    @property
    def category(self) -> Tensor:
        """The category whose images excite each filter most in the mean, (filters,); of equals the first."""
        return (self.response == self.response.amax(0)).int().argmax(0)

    def forward(self, maps: Tensor, labels: Tensor) -> Tensor:
        """Return a scalar whose gradient is that of the loss.

        Parameters
        ----------
        maps : Tensor, (images, filters, h, w)
            Responses before they are masked, none below 0.
        labels : Tensor of int, (images,)
            The images' categories; −1 for an image of none.
        """
        # Exponentials of sums over whole maps need single precision, whatever the layers compute in.
        with torch.autocast(maps.device.type, enabled=False):
            return self._value(
                maps.float() if maps.dtype in (torch.bfloat16, torch.float16) else maps, labels
            )

    def _value(self, maps: Tensor, labels: Tensor) -> Tensor:
        fits = template_fits(maps, self.templates)
        if self.training:
            self._follow(fits.detach(), maps.detach(), labels)
        relative = fits - self.log_mean_fit  # log p(x|T) but for the number of images
        marginal = relative.logsumexp(2, keepdim=True) - math.log(len(self.templates))
        # d p/dx = p t and Σ_T p(T) p(x|T) = p(x), so that only this factor is left of the gradient.
        factor = (relative.exp() * (relative - marginal)).detach() / len(self.templates)
        if self.all_templates:
            drawn, weight = fits, factor
        else:
            assigned = self._assigned(maps.detach(), labels)[..., None]
            drawn, weight = fits.gather(2, assigned), factor.gather(2, assigned)
        pull = weight * drawn
        # The gradient of the pull, the value of the loss.
        return -(pull - pull.detach() + weight).sum((1, 2)).mean()

    def _assigned(self, maps: Tensor, labels: Tensor) -> Tensor:
        flat = maps.flatten(2)
        peak = (flat == flat.amax(2, keepdim=True)).int().argmax(2)
        own = labels[:, None] == self.category
        return torch.where(own, peak, len(self.templates) - 1)

    def _follow(self, fits: Tensor, maps: Tensor, labels: Tensor) -> None:
        now = fits.logsumexp(0) - math.log(len(fits))
        # A mean of all batches until there are as many as the momentum looks back on.
        steps = int(self.steps)
        keep = min(self.momentum, steps / (steps + 1))
        if keep == 0:
            self.log_mean_fit.copy_(now)
        else:
            self.log_mean_fit.copy_(
                torch.logaddexp(self.log_mean_fit + math.log(keep), now + math.log1p(-keep))
            )
        self.steps += 1
        for category in range(len(self.seen)):
            of_it = labels == category
            if bool(of_it.any()):
                mean = maps[of_it].sum((2, 3)).mean(0)
                weight = 1 - min(self.momentum, int(self.seen[category]) / (int(self.seen[category]) + 1))
                self.response[category].lerp_(mean, weight)
                self.seen[category] += 1
