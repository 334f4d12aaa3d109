import numpy as np

from taxi_duration.domain.zones import AIRPORT_ZONES, LAST_ZONE, OUTER_BOROUGHS, zone_table


def test_arrays_are_indexed_by_location_id():
    zones = zone_table()
    assert all(len(values) == LAST_ZONE + 1 for values in zones)
    assert (zones.borough[132], zones.name[132]) == ("Queens", "JFK Airport")
    assert (zones.borough[1], zones.borough[138]) == ("EWR", "Queens")


def test_every_real_zone_lies_in_or_near_new_york():
    zones = zone_table()
    real = np.arange(1, 264)
    assert (np.abs(zones.longitude[real] + 74.0) < 0.4).all()
    assert (np.abs(zones.latitude[real] - 40.7) < 0.3).all()
    assert (zones.area_km2[real] > 0).all()


def test_unknown_zones_have_no_place():
    zones = zone_table()
    assert np.isnan(zones.longitude[[0, 264, 265]]).all()
    assert zones.borough[264] == "Unknown"


def test_boroughs_are_spelt_as_the_segments_expect():
    boroughs = set(zone_table().borough[1:264])
    assert {*OUTER_BOROUGHS, "Manhattan", "EWR"} == boroughs
    assert all("Airport" in zone_table().name[zone] for zone in AIRPORT_ZONES)


def test_real_lookup_table_agrees_with_the_built_in_one(real_months):
    import csv

    zones = zone_table()
    with (real_months / "misc" / "taxi_zone_lookup.csv").open() as file:
        for row in csv.DictReader(file):
            zone = int(row["LocationID"])
            if zone < 264:
                assert (zones.borough[zone], zones.name[zone]) == (row["Borough"], row["Zone"])
