//! Protectables and protection plugins for directories, disks and databases of a host.
