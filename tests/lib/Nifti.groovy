import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.security.MessageDigest
import java.util.zip.GZIPInputStream

/**
 * Content of a NIfTI-1 file for snapshots: shape, voxel size, orientation and a checksum of the voxels rounded to three
 * decimals, so that a snapshot holds what an image shows and not how its bytes were packed.
 */
class Nifti {

    static Map content(path) {
        def buffer = open(path)
        def values = voxels(buffer, extent(buffer).inject(1) { a, b -> a * b })
        def digest = MessageDigest.getInstance('SHA-256')
        def sum = 0.0d
        def positive = 0
        def line = ByteBuffer.allocate(8)
        values.each { value ->
            line.putLong(0, Math.round(value * 1000.0d))
            digest.update(line.array())
            sum += value
            positive += value > 0 ? 1 : 0
        }
        return header(buffer) + [
            positive: positive,
            mean: round(sum / values.length),
            sha256: digest.digest().encodeHex().toString(),
        ]
    }

    /** Shape, voxel size and position without the voxels, for images whose last digits may differ between processors. */
    static Map grid(path) {
        return header(open(path))
    }

    /** Number of voxels with a value, such as a label. */
    static int count(path, double wanted) {
        def buffer = open(path)
        int found = 0
        for (double value in voxels(buffer, extent(buffer).inject(1) { a, b -> a * b })) {
            found += value == wanted ? 1 : 0
        }
        return found
    }

    private static ByteBuffer open(path) {
        def buffer = ByteBuffer.wrap(read(new File(path.toString()))).order(ByteOrder.LITTLE_ENDIAN)
        if (buffer.getInt(0) != 348) {
            buffer.order(ByteOrder.BIG_ENDIAN)
        }
        return buffer
    }

    private static Map header(ByteBuffer buffer) {
        def shape = extent(buffer)
        def zooms = (1..shape.size()).collect { axis -> round(buffer.getFloat(76 + 4 * axis)) }
        def affine = (0..<12).collect { index -> round(buffer.getFloat(280 + 4 * index)) }
        return [shape: shape, zooms: zooms, affine: affine]
    }

    private static List<Integer> extent(ByteBuffer buffer) {
        return (1..buffer.getShort(40)).collect { axis -> buffer.getShort(40 + 2 * axis) as int }
    }

    private static byte[] read(File file) {
        file.withInputStream { raw ->
            def stream = file.name.endsWith('.gz') ? new GZIPInputStream(raw) : raw
            return stream.bytes
        }
    }

    private static double[] voxels(ByteBuffer buffer, int count) {
        def type = buffer.getShort(70)
        def offset = buffer.getFloat(108) as int
        def slope = buffer.getFloat(112)
        def inter = buffer.getFloat(116)
        def scaled = slope != 0f && !Float.isNaN(slope)
        def result = new double[count]
        for (int i = 0; i < count; i++) {
            double value
            switch (type) {
                case 2: value = buffer.get(offset + i) & 0xff; break
                case 4: value = buffer.getShort(offset + 2 * i); break
                case 8: value = buffer.getInt(offset + 4 * i); break
                case 16: value = buffer.getFloat(offset + 4 * i); break
                case 64: value = buffer.getDouble(offset + 8 * i); break
                case 512: value = buffer.getShort(offset + 2 * i) & 0xffff; break
                default: throw new IllegalArgumentException("NIfTI data type ${type} is not handled")
            }
            result[i] = scaled ? value * slope + inter : value
        }
        return result
    }

    private static BigDecimal round(value) {
        return new BigDecimal(value as double).setScale(3, java.math.RoundingMode.HALF_UP)
    }

}
