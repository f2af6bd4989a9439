//! Cutting, naming, compressing and sealing chunks; the formats of packs, index segments, manifests, commit records and key slots.
