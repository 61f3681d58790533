//! Functions on addresses, protocols and flow keys.

use std::net::IpAddr;

use arrow::{
    array::{Array, BooleanArray, Int64Array, StringArray},
    compute::cast,
    datatypes::DataType,
};
use datafusion::{
    common::cast::as_int64_array,
    error::Result,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
};
use ipnet::IpNet;
use netverdict_flowlog::flow_id;
use netverdict_policy::model::Protocol;

use super::columns::{answer, columns, texts};

/// `cidr_contains(ip, cidr)`: whether a block holds an address; null where either is none. An address alone is a
/// block of one. Never true across families.
pub(super) fn cidr_contains() -> ScalarUDF {
    CidrContains { signature: Signature::any(2, Volatility::Immutable) }.into()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct CidrContains {
    signature: Signature,
}

impl ScalarUDFImpl for CidrContains {
    fn name(&self) -> &str {
        "cidr_contains"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = columns(&args)?;
        let (addresses, blocks) = (texts(&columns[0])?, texts(&columns[1])?);
        // The block is nearly always a literal: remember the last one.
        let mut last: (Option<&str>, Option<IpNet>) = (None, None);
        let found: BooleanArray = addresses
            .iter()
            .zip(&blocks)
            .map(|(address, block)| {
                if last.0 != block {
                    last = (block, block.and_then(parse_block));
                }
                Some(last.1?.contains(&address?.parse::<IpAddr>().ok()?))
            })
            .collect();
        answer(found)
    }
}

fn parse_block(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// `protocol_name(number)`: `TCP`, `UDP`, …; the number as text where it has no name here.
pub(super) fn protocol_name() -> ScalarUDF {
    ProtocolName { signature: Signature::any(1, Volatility::Immutable) }.into()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ProtocolName {
    signature: Signature,
}

impl ScalarUDFImpl for ProtocolName {
    fn name(&self) -> &str {
        "protocol_name"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let numbers = cast(&columns(&args)?[0], &DataType::Int64)?;
        let names: StringArray = as_int64_array(&numbers)?
            .iter()
            .map(|number| {
                let number = number?;
                Some(u8::try_from(number).map_or_else(|_| number.to_string(), |number| Protocol(number).to_string()))
            })
            .collect();
        answer(names)
    }
}

/// `flow_id(protocol, source_ip, source_port, destination_ip, destination_port)`: equal at both nodes, not unique over
/// time. Null where an address is none.
pub(super) fn flow_id() -> ScalarUDF {
    FlowId { signature: Signature::any(5, Volatility::Immutable) }.into()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct FlowId {
    signature: Signature,
}

impl ScalarUDFImpl for FlowId {
    fn name(&self) -> &str {
        "flow_id"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = columns(&args)?;
        let numbers = |index: usize| cast(&columns[index], &DataType::Int64);
        let (protocol, source_port, destination_port) = (numbers(0)?, numbers(2)?, numbers(4)?);
        let protocol = as_int64_array(&protocol)?;
        let (source_port, destination_port) = (as_int64_array(&source_port)?, as_int64_array(&destination_port)?);
        let (sources, destinations) = (texts(&columns[1])?, texts(&columns[3])?);
        let port = |ports: &Int64Array, row: usize| {
            if ports.is_null(row) { Some(0) } else { u16::try_from(ports.value(row)).ok() }
        };
        let ids: Int64Array = (0..args.number_rows)
            .map(|row| {
                if protocol.is_null(row) || sources.is_null(row) || destinations.is_null(row) {
                    return None;
                }
                Some(flow_id::flow_id(
                    u8::try_from(protocol.value(row)).ok()?,
                    (sources.value(row).parse().ok()?, port(source_port, row)?),
                    (destinations.value(row).parse().ok()?, port(destination_port, row)?),
                ))
            })
            .collect();
        answer(ids)
    }
}
