package segment

import (
	"encoding/binary"
	"fmt"

	"github.com/parquet-go/parquet-go/deprecated"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"

	"ghostlight/internal/event"
)

// magic begins and ends a Parquet file.
const magic = "PAR1"

// leaf is a column of the file. A map has two, each other type one.
type leaf struct {
	path     []string
	kind     format.Type
	repeated bool
	dense    bool // zstd saves nothing
}

// leaves lists the columns of a file, and the first of each of the table's.
func (s *Schema) leaves() (all []leaf, first []int) {
	for i, c := range s.Table.Columns {
		first = append(first, len(all))
		name := s.SQL[i]
		switch c.Type {
		case event.Bool:
			all = append(all, leaf{path: []string{name}, kind: format.Boolean})
		case event.String:
			all = append(all, leaf{path: []string{name}, kind: format.ByteArray})
		case event.Strings:
			all = append(all, leaf{path: []string{name, "list", "element"}, kind: format.ByteArray, repeated: true})
		case event.Map:
			all = append(all, leaf{path: []string{name, "key_value", "key"}, kind: format.ByteArray, repeated: true},
				leaf{path: []string{name, "key_value", "value"}, kind: format.ByteArray, repeated: true})
		default:
			all = append(all, leaf{path: []string{name}, kind: format.Int64})
		}
	}
	return all, first
}

// elements lists the schema of a file, each group before what is in it.
func (s *Schema) elements(required []bool) []format.SchemaElement {
	all := []format.SchemaElement{{Name: s.Table.Name, NumChildren: thrift.New(int32(len(s.SQL)))}}
	for i, c := range s.Table.Columns {
		repetition := format.Optional
		if required[i] {
			repetition = format.Required
		}
		switch c.Type {
		case event.Bool:
			all = append(all, plainElement(s.SQL[i], format.Boolean, repetition))
		case event.Time:
			e := plainElement(s.SQL[i], format.Int64, repetition)
			e.LogicalType.Value = &format.TimestampType{IsAdjustedToUTC: true, Unit: format.TimeUnit{Value: new(format.NanoSeconds)}}
			all = append(all, e)
		case event.String:
			all = append(all, textElement(s.SQL[i], repetition))
		case event.Strings:
			all = append(all, groupElement(s.SQL[i], deprecated.List, new(format.ListType)),
				repeatedElement("list", 1), textElement("element", format.Required))
		case event.Map:
			all = append(all, groupElement(s.SQL[i], deprecated.Map, new(format.MapType)),
				repeatedElement("key_value", 2), textElement("key", format.Required), textElement("value", format.Required))
		default:
			e := plainElement(s.SQL[i], format.Int64, repetition)
			e.ConvertedType = thrift.New(deprecated.Int64)
			e.LogicalType.Value = &format.IntType{BitWidth: 64, IsSigned: true}
			all = append(all, e)
		}
	}
	return all
}

func plainElement(name string, t format.Type, r format.FieldRepetitionType) format.SchemaElement {
	return format.SchemaElement{Name: name, Type: thrift.New(t), RepetitionType: thrift.New(r)}
}

func textElement(name string, r format.FieldRepetitionType) format.SchemaElement {
	e := plainElement(name, format.ByteArray, r)
	e.ConvertedType = thrift.New(deprecated.UTF8)
	e.LogicalType.Value = new(format.StringType)
	return e
}

func groupElement(name string, c deprecated.ConvertedType, t format.LogicalTypeValue) format.SchemaElement {
	return format.SchemaElement{
		Name: name, RepetitionType: thrift.New(format.Optional), NumChildren: thrift.New(int32(1)),
		ConvertedType: thrift.New(c), LogicalType: format.LogicalType{Value: t},
	}
}

func repeatedElement(name string, children int32) format.SchemaElement {
	return format.SchemaElement{Name: name, RepetitionType: thrift.New(format.Repeated), NumChildren: thrift.New(children)}
}

// close writes the footer.
func (f *writer) close(groups []Extent, merged bool) error {
	meta := format.FileMetaData{
		Version: 2, CreatedBy: "ghostlight", NumRows: f.rows, RowGroups: f.groups, Schema: f.schema.elements(f.required),
		KeyValueMetadata: []format.KeyValue{{Key: keySeq, Value: fmt.Sprint(groups[0].Seq)}, {Key: keyGroups, Value: encodeGroups(groups)}},
	}
	if merged {
		meta.KeyValueMetadata = append(meta.KeyValueMetadata, format.KeyValue{Key: keyMerged, Value: "true"})
	}
	for range f.leaves {
		meta.ColumnOrders = append(meta.ColumnOrders, format.ColumnOrder{Value: new(format.TypeDefinedOrder)})
	}
	footer, err := f.chunk.header.encode(&meta)
	if err != nil {
		return err
	}
	f.write(footer)
	f.write(append(binary.LittleEndian.AppendUint32(nil, uint32(len(footer))), magic...))
	return f.out.Flush()
}
