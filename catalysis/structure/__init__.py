"""From a structure to a site and its template: elements, adsorbates, surfaces, reading, the order of what is equal."""
