//! dawn-mesh
