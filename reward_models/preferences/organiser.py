"""The organiser's page: how far it is, how far raters agree, guidelines, links, exports."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(include_in_schema=False)
